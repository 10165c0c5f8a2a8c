"""The output folder of a run: checks, temporary files, and what killed processes left."""

import contextlib
import errno
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from jaxvid.core.files import TEMPORARY_PREFIX, disk_full, link
from jaxvid.runs.causes import KILLED
from jaxvid.runs.manifest import FAILED, Manifest, lock
from jaxvid.runs.share import Share

OWNER, CLAIM, WORK = "owner.json", "claim.json", "work.json"


class Staging:
    """A folder of one process for files that are not finished; it vanishes with the run.

    It lies in the output folder, so that a finished file can be renamed into place. The process
    holds a lock in it: whoever gets the lock knows that the process is dead.
    """

    def __init__(self, output: Path, share: Share):
        self.output, self.share = output, share
        token = secrets.token_hex(4)
        self.folder = output / f"{TEMPORARY_PREFIX}{share.index}-of-{share.count}-{token}"
        self.folder.mkdir()
        owner = {"share": [share.index, share.count], "host": _host(), "pid": os.getpid()}
        self._lock = os.open(self.folder / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        lock(self._lock, self.folder)
        os.write(self._lock, json.dumps(owner).encode())

    def path(self, number: int, file: str) -> Path:
        """Where output `file` of the request with that number in this run is written."""
        return self.folder / f"{number}-{secrets.token_hex(4)}{Path(file).suffix}"

    def begin(self, requests: dict[str, dict], manifest: Manifest):
        """Notes the requests that are worked on from now: what a row tells of them, by id."""
        work = {"requests": requests, "manifest": manifest.end()}
        (self.folder / WORK).write_text(json.dumps(work))

    def commit(self, manifest: Manifest, row: dict, staged: dict[Path, str], keep: bool = False):
        """Moves finished files to their names, then appends their row to the manifest.

        The files are claimed first, so that a process killed in between leaves no file that
        looks finished; the claim of the request before is void by then.

        Args:
          staged: temporary path -> file relative to the output folder.
          keep: the temporary files stay, too, since a later run may go on from them.
        """
        if keep:
            names = {self.path(0, name): path for path, name in staged.items()}
            for name, path in names.items():
                link(path, name)
            staged = {name: staged[path] for name, path in names.items()}
        if not (self.folder / OWNER).exists():
            raise OSError(errno.ENOENT, "it was moved or deleted meanwhile", str(self.output))
        claim = {"id": row["id"], "files": [*staged.values()], "manifest": manifest.end()}
        with open(self.folder / CLAIM, "w") as file:
            file.write(json.dumps(claim))
            file.flush()
            os.fsync(file.fileno())
        finals = {temporary: self.output / name for temporary, name in staged.items()}
        try:
            for temporary, final in finals.items():
                final.parent.mkdir(parents=True, exist_ok=True)
                os.replace(temporary, final)
            manifest.append(row)
        except BaseException:
            for temporary, final in finals.items():
                if not temporary.exists():
                    final.unlink(missing_ok=True)
            raise

    def remove(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


@contextlib.contextmanager
def open_output(folder: str | os.PathLike, share: Share) -> Iterator[tuple[Manifest, Staging]]:
    """Makes and checks the output folder, clears what dead processes of this share left in it.

    Raises:
      ValueError: it is a file, cannot be written, its disk is full, or a living process works
        on the same requests.
    """
    output = Path(folder).expanduser().absolute()
    manifest = Manifest(output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with manifest.locked():
            killed = clear_dead(manifest, share)
            staging = Staging(output, share)
        for row in killed:
            manifest.append(row)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"output={output} is, or lies under, a file; give a folder") from None
    except OSError as error:
        reason = "the disk is full" if disk_full(error) else error.strerror
        raise ValueError(f"cannot write to output={output}: {reason}") from None
    try:
        yield manifest, staging
    finally:
        staging.remove()


def clear_dead(manifest: Manifest, share: Share, patience: float = 5.0) -> list[dict]:
    """Removes the staging folders of dead processes; the manifest must be locked.

    Returns rows for the manifest that tell of requests which the processes were killed over.

    Files that a process had renamed without living to write their row are removed too. Of
    processes on other hosts only those are touched whose requests all belong to `share`, since
    some file systems lock within one host only.
    """
    output, killed = manifest.path.parent, []
    for folder in sorted(output.glob(f"{TEMPORARY_PREFIX}*-of-*")):
        owner = _read_owner(folder)
        theirs = Share(*owner["share"])
        if not (owner["host"] == _host() or share.covers(theirs)):
            continue
        if _is_dead(folder, patience if share.overlaps(theirs) else 0):
            _drop_claim(folder, manifest)
            killed += _killed_over(folder, owner, manifest)
            shutil.rmtree(folder)
        elif share.overlaps(theirs):
            raise ValueError(
                f"process {owner['pid']} on {owner['host']} is working on share {theirs} of "
                f"{output}; wait for it or give another output folder"
            )
    for path in output.glob(f"{TEMPORARY_PREFIX}*"):
        if path.is_file():  # of an atomic_path in the folder itself, such as the gallery's
            path.unlink(missing_ok=True)
    return killed


def _read_owner(folder: Path) -> dict:
    """Who made the folder. It is made under the manifest's lock, so half a file means dead."""
    try:
        return json.loads((folder / OWNER).read_text())
    except (OSError, ValueError):
        return {"share": [0, 1], "host": _host(), "pid": 0}


def _is_dead(folder: Path, patience: float) -> bool:
    """Whether the owner's lock is free, waiting a little for a process that is just ending."""
    deadline = time.monotonic() + patience
    while True:
        try:
            file = os.open(folder / OWNER, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            if lock(file, folder, wait=False):
                return True
        finally:
            os.close(file)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def _drop_claim(folder: Path, manifest: Manifest):
    """Deletes the outputs that were renamed but never recorded."""
    try:
        claim = json.loads((folder / CLAIM).read_text())
    except (OSError, ValueError):  # none, or torn, when nothing was renamed yet
        return
    if all(row["id"] != claim["id"] for row in manifest.rows(claim["manifest"])):
        for file in claim["files"]:
            (manifest.path.parent / file).unlink(missing_ok=True)


def _killed_over(folder: Path, owner: dict, manifest: Manifest) -> Iterator[dict]:
    """A row for each request that a dead process had begun and not brought to an end."""
    try:
        work = json.loads((folder / WORK).read_text())
    except (OSError, ValueError):  # nothing begun, or killed while it wrote this
        return
    ended = {row["id"] for row in manifest.rows(work["manifest"])}
    for id, facts in work["requests"].items():
        if id not in ended:
            yield facts | {
                "id": id,
                "status": FAILED,
                "kind": KILLED,
                "error": f"process {owner['pid']} on {owner['host']} was killed while it made this",
                "share": str(Share(*owner["share"])),
            }


def _host() -> str:
    return socket.gethostname()
