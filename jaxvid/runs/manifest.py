"""`manifest.jsonl`: one JSON row per finished or failed request, appended by many processes."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

NAME = "manifest.jsonl"
DONE, FAILED = "done", "failed"


class Manifest:
    """The manifest of an output folder.

    A row is appended under a lock and is on disk when `append` returns. A process killed while
    it writes can leave half a line at the end: readers ignore it and the next writer cuts it off.
    """

    def __init__(self, folder: str | os.PathLike):
        self.path = Path(folder) / NAME

    def rows(self, start: int = 0) -> list[dict]:
        """The whole rows from byte `start` on, in the order they were written."""
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(max(start - 1, 0))
            if start and file.read(1) != b"\n":  # somebody has edited it meanwhile
                file.seek(0)
            return _parse(file.read(), self.path)

    def end(self) -> int:
        """The byte after the last whole row."""
        if not self.path.exists():
            return 0
        with open(self.path, "rb") as file:
            return _whole_lines(file.fileno())

    def latest(self) -> dict[str, dict]:
        """The newest row of each request id."""
        return {row["id"]: row for row in self.rows()}

    def append(self, row: dict):
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        with self.locked() as file:
            end = _whole_lines(file)
            try:
                os.ftruncate(file, end)
                _write_all(file, line)
                os.fsync(file)
            except BaseException:
                os.ftruncate(file, end)  # say, the disk is full: leave no half row
                raise

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Holds the lock of the folder; yields the descriptor of the manifest, open to append."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            lock(file, self.path)
            yield file
        finally:
            os.close(file)  # which also unlocks


def lock(file: int, path: Path, wait: bool = True) -> bool:
    """Locks an open file until it is closed or the process dies; False if another one has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        raise ValueError(
            f"{path}: this file system has no file locks ({error.strerror}), "
            "which the manifest needs; choose an output folder on another one"
        ) from None
    return True


def _parse(text: bytes, path: Path) -> list[dict]:
    *lines, _torn = text.split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            if not (isinstance(row, dict) and {"id", "status"} <= row.keys()):
                raise ValueError("it is no row of a run")
        except ValueError as error:
            raise ValueError(f"{path}: line {number} is damaged ({error}); remove it") from None
        rows.append(row)
    return rows


def _whole_lines(file: int) -> int:
    """Number of bytes up to and including the last newline."""
    end = os.fstat(file).st_size
    step = 65536
    while end > 0:
        start = max(0, end - step)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def _write_all(file: int, data: bytes):
    while data:
        data = data[os.write(file, data) :]
