"""Files that are either whole or absent."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

TEMPORARY_PREFIX = ".unfinished-"


class InputError(ValueError):
    """A file to read is missing, damaged or not what it should be; another one may be fine."""


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path` (same suffix) that becomes `path` on a clean exit.

    The contents are on disk before the rename, so `path` is never half-written; after an
    exception the temporary file is removed. A killed process can leave a file whose name
    starts with TEMPORARY_PREFIX, which `remove_temporaries` clears.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{os.getpid()}-{secrets.token_hex(4)}"  # without path.name, which may be long
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{unique}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def link(source: Path, path: Path) -> None:
    """Gives a file another name, in place of what has it; a copy where the disk has no links."""
    with atomic_path(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def remove_temporaries(folder: str | os.PathLike) -> int:
    """Deletes files that killed writers left anywhere under `folder`; returns their number.

    Hidden folders of that prefix belong to runs, which clear them themselves.
    """
    count = 0
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY_PREFIX)]
        for name in (name for name in files if name.startswith(TEMPORARY_PREFIX)):
            Path(place, name).unlink(missing_ok=True)
            count += 1
    return count


@contextlib.contextmanager
def locked(folder: str | os.PathLike, refusal: str) -> Iterator[None]:
    """Makes the folder and keeps other processes out of it, where the file system has locks.

    Raises:
      ValueError: `refusal`, if another process is in it.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(refusal) from None
    except OSError:
        pass  # no locks here, as on some network disks
    try:
        yield
    finally:
        os.close(handle)


def check_writable(folder: str | os.PathLike, name: str) -> None:
    """Raises ValueError if `folder`, which may not exist yet, cannot be written; makes nothing.

    name: of the setting, for the message.
    """
    path = Path(folder).expanduser().absolute()
    parent = next(place for place in (path, *path.parents) if os.path.lexists(place))
    if not parent.is_dir():
        raise ValueError(f"{name}={path} is, or lies under, a file; give a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write to {name}={path}: {parent} is read-only; give another")


def disk_full(error: BaseException) -> bool:
    """Whether the error says that the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def read_json(path: Path) -> dict:
    """The object of a JSON file, such as a model's settings; ValueError if it has none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object")
    return found


def sha256(path: str | os.PathLike) -> str:
    """Hex digest of a file's contents."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
