"""Files that grow as frames come; the suffix chooses the writer.

Each writer has `write(frames)`, `close()` (the file is whole and on disk), `discard()` (no file
remains) and `frames`, the number written. All work on a temporary path that the run renames.
"""

import json
import os
from pathlib import Path

import imageio.v3
import numpy as np

from jaxvid.core.video import VideoWriter


class NpyWriter:
    """An array that grows on its first axis; byte for byte what `np.save` writes."""

    def __init__(self, path: Path):
        self.path, self.frames = path, 0
        self._file = open(path, "wb")
        self._shape = None

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
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def discard(self):
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _header(self):
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.frames, *self._shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


class WholeWriter:
    """A file written in one piece: a still image or a JSON value."""

    def __init__(self, path: Path):
        self.path, self.frames, self._value = path, 0, None

    def write(self, frames):
        if self.frames:
            raise ValueError(f"a {self.path.suffix} file takes one chunk, not two")
        self.frames, self._value = 1, frames

    def close(self):
        if not self.frames:
            raise ValueError("nothing was written")
        with open(self.path, "wb") as file:
            file.write(_encode(self._value, self.path.suffix))
            file.flush()
            os.fsync(file.fileno())

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
    """options: those of the request; `fps` counts for videos."""
    if path.suffix in (".mp4", ".gif"):
        return VideoWriter(path, options["fps"])
    return NpyWriter(path) if path.suffix == ".npy" else WholeWriter(path)
