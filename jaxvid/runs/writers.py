"""Files that grow as frames come; the suffix chooses the writer.

Each writer has `write(frames)`, `close()` (the file is whole and on disk), `discard()` (no file
remains) and `frames`, the number written. All work on a temporary path that the run renames.

`mark()` puts what was written on the disk and returns a JSON value, with which a later process
opens the writer again as it was then; what came after the mark is forgotten.
"""

import json
import os
from pathlib import Path

import imageio.v3
import numpy as np

from jaxvid.core.video import VideoWriter
from jaxvid.core.video_parts import VideoPartsWriter


class NpyWriter:
    """An array that grows on its first axis; byte for byte what `np.save` writes."""

    def __init__(self, path: Path, mark: dict | None = None):
        self.path, self.frames = path, 0
        self._shape = None
        if mark is None or mark["end"] == 0:
            self._file = open(path, "wb")
            return
        self._file = open(path, "r+b")
        if path.stat().st_size < mark["end"]:
            raise ValueError(f"{path} is shorter than it was")
        self._file.truncate(mark["end"])
        self._file.seek(mark["end"])
        self.frames, self._shape = mark["frames"], tuple(mark["shape"])
        self._dtype = np.dtype(mark["dtype"])

    def mark(self) -> dict:
        self._sync()
        if self._shape is None:
            return {"end": 0}
        dtype = np.lib.format.dtype_to_descr(self._dtype)
        end = self._file.tell()
        return {"end": end, "frames": self.frames, "shape": self._shape, "dtype": dtype}

    def write(self, frames: np.ndarray):
        frames = np.ascontiguousarray(frames)
        if frames.ndim == 0:
            raise ValueError("an array for .npy needs an axis to grow on")
        if self._shape is None:
            self._shape, self._dtype = frames.shape[1:], frames.dtype
            self._header()
        if frames.shape[1:] != self._shape or frames.dtype != self._dtype:
            raise ValueError(
                f"array {frames.dtype}{frames.shape} after ones of "
                f"{self._dtype}(n, {str(self._shape)[1:]}"
            )
        self._file.write(frames.tobytes())
        self.frames += len(frames)

    def close(self):
        if self._shape is None:
            raise ValueError("no frames were written")
        self._file.seek(0)
        self._header()  # NumPy pads the header so that the first axis can grow in place
        self._sync()
        self._file.close()

    def discard(self):
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _sync(self):
        self._file.flush()
        os.fsync(self._file.fileno())

    def _header(self):
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.frames, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


class WholeWriter:
    """A file written in one piece: a still image or a JSON value."""

    def __init__(self, path: Path, mark: dict | None = None):
        self.path, self.frames = path, mark["frames"] if mark else 0
        if self.frames and not path.exists():
            raise ValueError(f"{path} is not there any more")

    def write(self, frames):
        if self.frames:
            raise ValueError(f"a {self.path.suffix} file takes one chunk, not two")
        with open(self.path, "wb") as file:
            file.write(_encode(frames, self.path.suffix))
            file.flush()
            os.fsync(file.fileno())
        self.frames = 1

    def mark(self) -> dict:
        return {"frames": self.frames}

    def close(self):
        if not self.frames:
            raise ValueError("nothing was written")

    def discard(self):
        self.path.unlink(missing_ok=True)


def _encode(value, suffix: str) -> bytes:
    if suffix == ".json":
        return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
    image = np.asarray(value)
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[0] != 1:
        raise ValueError(f"a .png takes uint8 (1, h, w, 3), not {image.dtype}{image.shape}")
    return imageio.v3.imwrite("<bytes>", image[0], extension=".png")


def open_writer(path: Path, options: dict):
    """A writer without marks. options: those of the request; `fps` counts for videos."""
    if path.suffix in (".mp4", ".gif"):
        return VideoWriter(path, options["fps"])
    return NpyWriter(path) if path.suffix == ".npy" else WholeWriter(path)


def open_marked_writer(path: Path, options: dict, mark: dict | None = None):
    """A writer with marks, at the start or at one of them; a .gif has none after its frames."""
    if path.suffix in (".mp4", ".gif"):
        return VideoPartsWriter(path, options["fps"], mark=mark)
    return (NpyWriter if path.suffix == ".npy" else WholeWriter)(path, mark)
