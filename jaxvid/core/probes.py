"""What videos hold, remembered from run to run: ten thousand of them are planned in seconds."""

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from jaxvid.core.files import InputError
from jaxvid.core.video import VideoInfo, probe

THREADS = 8  # that look at files; the decoder lets others run
VERSION = 1  # of the notes; another one if `probe` counts otherwise


class Probes:
    """`core.video.probe` that looks at a file once, as long as its size and time stay the same.

    Notes are kept in `folder`, a file for each folder of videos, which processes may append to at
    the same time. A line is [name, bytes, mtime_ns, frames, height, width, fps]; the last one of a
    name counts, and half a line, as a kill leaves it, does not. Files that cannot be read are
    looked at again by the next run.
    """

    def __init__(self, folder: str | os.PathLike = ""):
        """folder: made when there is something to note; "" keeps nothing."""
        self._folder = Path(folder).expanduser() if folder else None
        self._known = {}  # folder of videos -> name -> ((bytes, mtime_ns), VideoInfo)
        self._found = {}  # path -> VideoInfo, or what is wrong with the file

    def __call__(self, path: str) -> VideoInfo:
        """Raises InputError as `probe` does."""
        if path not in self._found:
            self.look([path])
        found = self._found[path]
        if isinstance(found, str):
            raise InputError(found)
        return found

    def look(self, paths: Iterable[str]) -> None:
        """Looks at several files at a time, those that have changed since the last run."""
        marks = {path: _mark(path) for path in dict.fromkeys(paths) if path not in self._found}
        for path, mark in marks.items():
            known, info = self._notes(path).get(os.path.basename(path), (None, None))
            if mark is not None and mark == known:
                self._found[path] = info
        new = [path for path in marks if path not in self._found]
        if not new:
            return
        with ThreadPoolExecutor(THREADS) as pool:
            self._found |= dict(zip(new, pool.map(_tried, new), strict=True))
        whole = [path for path in new if not isinstance(self._found[path], str)]
        self._write({path: marks[path] for path in whole if marks[path]})

    def _notes(self, path: str) -> dict:
        """Of the folder that the video is in."""
        place = os.path.dirname(os.path.abspath(path))
        if place not in self._known:
            self._known[place] = _read(self._file(place)) if self._folder else {}
        return self._known[place]

    def _file(self, place: str) -> Path:
        name = hashlib.sha256(f"{VERSION} {place}".encode(errors="surrogateescape")).hexdigest()
        return self._folder / f"{name[:32]}.jsonl"

    def _write(self, marks: dict[str, tuple]) -> None:
        """A folder that cannot be written costs the next run its time, nothing else."""
        if self._folder is None or not marks:
            return
        texts = {}
        for path, mark in marks.items():
            info, (place, name) = self._found[path], os.path.split(os.path.abspath(path))
            note = [name, *mark, info.frames, info.height, info.width, info.fps]
            texts[place] = texts.get(place, "") + f"\n{json.dumps(note)}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for place, text in texts.items():
                with open(self._file(place), "ab") as file:
                    file.write(f"{text}\n".encode())
        except OSError as error:
            print(f"note: {self._folder} cannot be written: {error.strerror}")


def _mark(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _tried(path: str) -> VideoInfo | str:
    try:
        return probe(path)
    except InputError as error:
        return str(error)


def _read(file: Path) -> dict[str, tuple]:
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError:
        return {}
    found = {}
    for line in filter(None, lines):
        try:
            name, size, time, frames, height, width, fps = json.loads(line)
        except (ValueError, TypeError):
            continue
        found[name] = (size, time), VideoInfo(frames, height, width, fps)
    return found
