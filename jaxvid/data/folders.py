"""Dataset folders, and copies of their files on a faster disk."""

import os
import re
import shutil
from pathlib import Path

from jaxvid.core.files import InputError, atomic_path


class DataFolder:
    """A folder of data files, of which $DATA_ROOT can hold a second copy.

    With the environment variable DATA_ROOT set (say to a disk of the compute node), a file of a
    relative folder is copied to the same relative path under it when it is first used, and read
    from there. If the folder only exists under DATA_ROOT, that is the one.
    """

    def __init__(self, folder: str | os.PathLike):
        """Raises ValueError if there is no such folder."""
        folder = Path(folder).expanduser()
        data_root = os.environ.get("DATA_ROOT", "")
        copy = Path(data_root).expanduser() / folder if data_root else None
        if folder.is_absolute() or copy == folder:
            copy = None
        if not folder.is_dir() and copy is not None and copy.is_dir():
            folder, copy = copy, None
        if not folder.is_dir():
            also = f" (nor under DATA_ROOT={data_root})" if data_root else ""
            raise ValueError(f"{folder}: there is no such data folder{also}; set root to yours")
        self.path, self.copy = folder, copy

    def files(self, suffixes: tuple[str, ...], recursive: bool = False) -> tuple[list[Path], int]:
        """Files with one of the (lower-case) suffixes in natural order, and how many others."""
        found = self.path.rglob("*") if recursive else self.path.iterdir()
        found = [path for path in found if path.is_file()]
        wanted = [p for p in found if p.suffix.lower() in suffixes and not p.name.startswith(".")]
        wanted.sort(key=lambda path: natural_key(str(path.relative_to(self.path))))
        return wanted, len(found) - len(wanted)

    def local(self, path: Path) -> Path:
        """Where to read a file of this folder from; copies it if need be.

        Raises:
          InputError: a file that cannot be read.
        """
        if self.copy is None:
            return path
        copy = self.copy / path.relative_to(self.path)
        if not copy.exists():
            if not os.access(path, os.R_OK):
                raise InputError(f"{path}: cannot be read (permission denied)")
            with atomic_path(copy) as temporary:  # processes may race; the last rename wins
                shutil.copyfile(path, temporary)
        return copy


def natural_key(name: str):
    """Sorts 2.npy before 10.npy."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts], name
