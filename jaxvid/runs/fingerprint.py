"""What a result was made from, as hashes: equal fingerprints mean equal outputs."""

import dataclasses
import functools
import hashlib
import json
import os
import stat
import subprocess
from pathlib import Path

import jaxvid
from jaxvid.core.files import InputError, sha256
from jaxvid.runs.requests import Request


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What all requests of a run share.

    config: hash of the settings that change outputs (`hash_json`), so without batch size,
      devices or output folder; checkpoint: hash that names the parameters.
    """

    config: str = ""
    checkpoint: str = ""


def hash_json(value) -> str:
    """Hex digest of a JSON value; the order of dictionary keys does not matter."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(request: Request, inputs: dict[str, dict], provenance: Provenance) -> str:
    """inputs: what `InputHashes.of_request` returned."""
    return hash_json(
        {
            "id": request.id,
            "seed": request.seed,
            "options": request.options,
            "outputs": request.outputs,
            "inputs": {name: entry["sha256"] for name, entry in inputs.items()},
            "config": provenance.config,
            "checkpoint": provenance.checkpoint,
        }
    )


class InputHashes:
    """Content hashes of input files, remembered by path, size and modification time.

    Thousands of requests may share files, and a resumed run finds the hashes in the manifest.
    """

    def __init__(self):
        self._known = {}  # (path, bytes, mtime_ns) -> sha256
        self._entries = {}  # path -> what of_request tells of it

    def learn(self, entries: dict[str, dict]):
        """Takes over the `inputs` of a manifest row."""
        for entry in entries.values():
            self._known[entry["path"], entry["bytes"], entry["mtime_ns"]] = entry["sha256"]

    def of_request(self, request: Request) -> dict[str, dict]:
        """name -> {path, bytes, mtime_ns, sha256}; an InputError names a file that is not there.

        Each file is looked at once: what a run reads later should be what it was at the start.
        """
        return {name: self._of_file(name, path) for name, path in request.inputs.items()}

    def check_unchanged(self, request: Request):
        """Raises InputError if a file is not what it was when it was first looked at."""
        for name, path in request.inputs.items():
            found, known = stat_input(name, path), self._of_file(name, path)
            if (found.st_size, found.st_mtime_ns) != (known["bytes"], known["mtime_ns"]):
                raise InputError(f"input {name}={path}: it changed while it was used")

    def _of_file(self, name: str, path: str) -> dict:
        if path not in self._entries:
            found = stat_input(name, path)
            key = os.path.abspath(path), found.st_size, found.st_mtime_ns
            if key not in self._known:
                self._known[key] = sha256(path)
            entry = dict(zip(("path", "bytes", "mtime_ns"), key, strict=True))
            self._entries[path] = {**entry, "sha256": self._known[key]}
        return self._entries[path]


def stat_input(name: str, path: str) -> os.stat_result:
    """Looks at an input file; an InputError says if it is missing, no file, empty or locked."""
    try:
        found = os.stat(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "no such file" if missing else (error.strerror or "unreadable").lower()
        raise InputError(f"input {name}={path}: {reason}") from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"input {name}={path}: not a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"input {name}={path}: permission denied")
    if found.st_size == 0:
        raise InputError(f"input {name}={path}: the file is empty (0 bytes)")
    return found


@functools.cache
def code_version() -> str:
    """The version of jaxvid, with the commit when it runs from a git checkout."""
    folder = Path(jaxvid.__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    if not (folder.parent / ".git").exists():
        return jaxvid.__version__
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return jaxvid.__version__
    return f"{jaxvid.__version__}+{found.stdout.strip()}"
