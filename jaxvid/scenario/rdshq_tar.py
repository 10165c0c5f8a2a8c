"""Tar files of the RDS-HQ format, read without unpacking: one sample, many named fields."""

import io
import json
import struct
import tarfile
import tokenize
from pathlib import Path

import numpy as np

BLOCK = 512
DIGITS = 9  # of a frame number
FPS = 30.0  # of the format
NPY_ERRORS = (  # of np.load for damaged files, whose header it parses as Python
    *(ValueError, OSError, EOFError, TypeError, AttributeError, SyntaxError, MemoryError),
    *(tokenize.TokenError, struct.error, KeyError),
)


class Sample:
    """All fields of one tar: `{clip}.{field}`, the field starting after the first dot.

    Raises ValueError, which names the file, for a tar that is damaged, cut off or empty.
    """

    def __init__(self, path: Path):
        self.path = path
        self.fields: dict[str, bytes] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    if member.isfile() and "." in (name := member.name.rpartition("/")[2]):
                        self.fields[name.partition(".")[2]] = tar.extractfile(member).read()
            with open(path, "rb") as file:
                file.seek(-BLOCK, io.SEEK_END)
                whole = not any(file.read())
        except (tarfile.TarError, OSError, EOFError) as error:
            raise ValueError(f"{path} is not a readable tar file: {error}") from error
        if not whole:
            raise ValueError(f"{path} is cut off: the end mark of the tar file is missing")
        if not self.fields:
            raise ValueError(f"{path} holds no files called CLIP.FIELD")

    def array(self, field: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """A float64 array; raises ValueError for damaged files and other shapes."""
        try:
            array = np.load(io.BytesIO(self.fields[field]), allow_pickle=False).astype(np.float64)
        except NPY_ERRORS as error:
            raise ValueError(f"{self.path}: {field} is no array of numbers: {error}") from error
        if shape is not None and array.shape != shape:
            raise ValueError(f"{self.path}: {field} has shape {array.shape}; it must be {shape}")
        return array

    def json(self, field: str) -> dict:
        """An object; raises ValueError for damaged files and other values."""
        try:
            content = json.loads(self.fields[field])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{self.path}: {field} is no JSON: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{self.path}: {field} must hold an object, not a list or a number")
        return content

    def frames(self, ending: str) -> dict[int, str]:
        """The fields `{frame}.{ending}` by frame number, ascending in their names.

        Raises ValueError for a name without a frame number.
        """
        found = sorted(f for f in self.fields if f.partition(".")[2] == ending)
        numbers = [f.partition(".")[0] for f in found]
        for field, number in zip(found, numbers, strict=True):
            if not number.isdecimal() or len(number) > DIGITS:
                raise ValueError(f"{self.path}: {field} does not start with a frame number")
        return {int(number): field for field, number in zip(found, numbers, strict=True)}


def frame_time(number: int) -> int:
    """Microseconds of a frame number, rounded as upstream does (`rdshq_loader.py`)."""
    return round(number * 1e6 / FPS)
