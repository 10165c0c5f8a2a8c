"""A folder that keeps arrays which take long to make, such as embeddings of prompts."""

import errno
import hashlib
import os
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxvid.core.files import atomic_path


class ArrayCache:
    """One `.npy` file for each key; a damaged file counts as absent."""

    def __init__(self, folder):
        self.folder = Path(folder).expanduser()

    def path(self, key: str) -> Path:
        """Where the array of a key is kept; the key tells all that the array depends on."""
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"

    def read(self, key: str, mapped: bool = False) -> np.ndarray | None:
        """What was written under the key, None if nothing; `mapped` leaves it on the disk."""
        try:
            array = np.load(self.path(key), mmap_mode="r" if mapped else None, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return as_numbers(array)

    def write(self, key: str, array: np.ndarray) -> None:
        """Keeps an array; an OSError names the folder, which need not be on a run's disk."""
        try:
            with atomic_path(self.path(key)) as temporary:
                np.save(temporary, array)
        except OSError as error:
            number = error.errno or errno.ENOSPC  # numpy leaves it out if too little was written
            raise OSError(number, os.strerror(number), str(self.folder)) from error


def as_numbers(array: np.ndarray) -> np.ndarray:
    """The array with its bfloat16 back, which `.npy` files hold as two bytes without a name."""
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array
