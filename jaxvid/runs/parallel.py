"""A folder of videos, each worked on by a process of its own GPU: which videos, and where to.

Beside `clip.mp4` lies its output folder `clip/`. In it MARKER says what was done, and marks the
folder as an output, so that videos in it are not taken for further inputs.
"""

import dataclasses
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from jaxvid.core.files import TEMPORARY_PREFIX, atomic_path, sha256
from jaxvid.runs.fingerprint import hash_json

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv")
MARKER, LOG = "run_parallel.json", "run_parallel.log"
DONE, FAILED, RUNNING = "done", "failed", "running"
VIDEO, OUTPUT = "{video}", "{output}"  # in the arguments of a script
USUAL_ARGUMENTS = ("--video_path", VIDEO, "--output_dir", OUTPUT)  # if they name no {video}


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """What to run over which folder; see scripts/run_parallel.py."""

    video_root: str
    num_gpus: int
    script: str
    arguments: tuple[str, ...] = ()  # of the script
    keep: bool = False  # the script serves many videos in one process, see serve.py
    schedule: Literal["round_robin", "dynamic"] = "round_robin"
    timeout: float = 0.0  # seconds for one video; 0: none
    retries: int = 1  # further attempts at a video whose process failed
    grace: float = 10.0  # seconds that a process has to end when it is told to
    resume: bool = True  # False makes finished videos again
    retry_failed: bool = True  # False leaves videos alone that failed in an earlier run
    fail_fast: bool = False
    max_failures: int = 0  # stop after so many failed videos; 0: never

    def __post_init__(self):
        if not Path(self.video_root).expanduser().is_dir():
            raise ValueError(f"--video_root={self.video_root} is not a folder")
        if not Path(self.script).expanduser().is_file():
            raise ValueError(f"--script={self.script}: there is no such file")
        if self.num_gpus < 1:
            raise ValueError(f"--num_gpus={self.num_gpus} must be at least 1")
        for name in ("timeout", "retries", "grace", "max_failures"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name}={getattr(self, name)} is negative")

    @property
    def failure_limit(self) -> float:
        return 1 if self.fail_fast else self.max_failures or float("inf")

    def command_of(self, video: Path, output: Path) -> list[str]:
        """Arguments of the script for one video."""
        words = self.arguments
        if not any(VIDEO in word for word in words):
            words = (*words, *USUAL_ARGUMENTS)
        places = {VIDEO: str(video), OUTPUT: str(output)}
        pattern = "|".join(map(re.escape, places))
        return [re.sub(pattern, lambda found: places[found[0]], word) for word in words]

    def identity(self) -> str:
        """Hash of what is done to each video."""
        return hash_json([sha256(Path(self.script).expanduser()), *self.arguments])


@dataclasses.dataclass
class Video:
    """One video on its way."""

    path: Path
    bytes: int = 0
    error: str = ""  # why it cannot be run
    attempts: int = 0

    @property
    def output(self) -> Path:
        return self.path.with_suffix("")

    @property
    def log(self) -> Path:
        return self.output / LOG


def find_videos(root: str | os.PathLike) -> list[Video]:
    """The videos under a folder, sorted by path; outputs of earlier runs are left out.

    Two videos that would share an output folder, or one whose output folder holds videos, carry
    an error. Raises ValueError if there are none.
    """
    root = Path(root).expanduser().absolute()
    paths = sorted(_walk(root))
    if not paths:
        raise ValueError(f"--video_root={root} holds no {', '.join(SUFFIXES)} file")
    videos = [Video(path, path.stat().st_size) for path in paths]
    folders = {parent for path in paths for parent in path.parents}
    by_output = {}
    for video in videos:
        by_output.setdefault(video.output, []).append(video.path.name)
    for video in videos:
        if len(names := by_output[video.output]) > 1:
            video.error = f"{' and '.join(names)} would share the folder {video.output}: rename one"
        elif video.output in folders:
            video.error = f"its output folder {video.output} holds videos to run: rename one"
        elif video.output.exists() and not video.output.is_dir():
            video.error = f"its output folder {video.output} is a file: move it"
        elif not os.access(video.path, os.R_OK):
            video.error = "permission denied"
        elif not video.bytes:
            video.error = "the file is empty (0 bytes)"
    return videos


def _walk(root: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(root):
        if MARKER in files and Path(folder) != root:
            subfolders.clear()
            continue
        subfolders[:] = [name for name in subfolders if not name.startswith(TEMPORARY_PREFIX)]
        for name in files:
            path = Path(folder, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("._") and path.is_file():
                yield path


def read_marker(video: Video) -> dict:
    """What an earlier run noted; {} if nothing."""
    try:
        return json.loads((video.output / MARKER).read_text())
    except (OSError, ValueError):
        return {}


def write_marker(video: Video, status: str, identity: str, **facts) -> None:
    """Notes how far a video is; for a finished one also the sizes of its files."""
    content = {"status": status, "video": video.path.name, "identity": identity}
    content |= {"input": _stamp(video.path), "attempts": video.attempts, **facts}
    if status == DONE:
        content["files"] = sizes(video.output)
    with atomic_path(video.output / MARKER) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def is_finished(video: Video, identity: str) -> bool:
    """Whether an earlier run did the same to the same file and the results are still there."""
    marker = read_marker(video)
    if not _is_about(marker, video, identity) or marker["status"] != DONE:
        return False
    found = sizes(video.output)
    return all(found.get(name) == size for name, size in marker["files"].items())


def has_failed(video: Video, identity: str) -> bool:
    """Whether the same failed for the same file before."""
    marker = read_marker(video)
    return _is_about(marker, video, identity) and marker["status"] == FAILED


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of all files in an output folder but our own."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.name not in (MARKER, LOG))
    return {str(p.relative_to(folder)): p.stat().st_size for p in found}


def gpu_names(count: int, environ=os.environ, devices: Sequence[str] | None = None) -> list[str]:
    """What CUDA_VISIBLE_DEVICES is for each worker: entries of the present value, or numbers.

    devices: NVIDIA's device files, those of this machine if None.
    Raises:
      ValueError: fewer GPUs than workers, where there are any; without, workers share the CPU.
    """
    if visible := environ.get("CUDA_VISIBLE_DEVICES", ""):
        names = [name.strip() for name in visible.split(",") if name.strip()]
        where = f"CUDA_VISIBLE_DEVICES={visible} has"
    else:
        if devices is None:
            devices = [p.name for p in Path("/dev").glob("nvidia*") if p.name[6:].isdigit()]
        names, where = [str(n) for n in range(len(devices) or count)], "this machine has"
    if count > len(names):
        raise ValueError(f"--num_gpus={count}: {where} {len(names)}; use at most {len(names)}")
    return names[:count]


def _is_about(marker: dict, video: Video, identity: str) -> bool:
    same = marker.get("identity") == identity
    return same and marker.get("input") == _stamp(video.path)


def _stamp(path: Path) -> list:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
