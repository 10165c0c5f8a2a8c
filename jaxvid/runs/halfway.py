"""What a long call leaves in the output folder, so that a killed run goes on in the middle of it.

`.unfinished-halfway/<key>/` belongs to one call: `requests.json`, the files of its outputs as far
as they are written, and its newest snapshot, a checkpoint that also tells where in them it is.
"""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from jaxvid.core import checkpoint
from jaxvid.core.distributed import agreed
from jaxvid.core.files import TEMPORARY_PREFIX
from jaxvid.runs.fingerprint import hash_json
from jaxvid.runs.requests import Request, Snapshot

FOLDER, REQUESTS = f"{TEMPORARY_PREFIX}halfway", "requests.json"


class Halfway:
    """The folder of one call, made if it is not there."""

    def __init__(self, output: Path, requests: Sequence[Request], prints: Sequence[str], size: int):
        """prints: the requests' fingerprints; size: of the generator's batches; see `key`."""
        self.requests = list(requests)
        self.folder = output / FOLDER / key(requests, prints, size)
        if not self.folder.exists():
            self._make()

    def _make(self):
        new = self.folder.with_name(f"new-{secrets.token_hex(4)}")  # whole when it gets its name
        new.mkdir(parents=True)
        (new / REQUESTS).write_text(json.dumps([request.id for request in self.requests]))
        os.replace(new, self.folder)

    def clear(self) -> None:
        """Forgets what an earlier life left."""
        shutil.rmtree(self.folder)
        self._make()

    def path(self, index: int, name: str) -> Path:
        """Where output `name` of request `index` of the call is written; the same in every life."""
        request = self.requests[index]
        number = sorted(request.outputs).index(name)
        return self.folder / f"{index}-{number}{Path(request.outputs[name]).suffix}"

    def step(self) -> int:
        """The number of the newest snapshot, 0 if there is none."""
        return checkpoint.latest_step(self.folder) or 0

    def save(self, step: int, snapshot: Snapshot, marks: Callable[[], list[dict]] = list) -> None:
        """Keeps a snapshot instead of the one before; every process of the run calls it.

        marks: of the writers, for each request; only the process that writes has any.
        """
        with agreed():
            info = {"info": snapshot.info, "marks": marks()}
        checkpoint.save_step(self.folder, step, snapshot.tree, info, keep=1)

    def marks(self, step: int) -> list[dict]:
        """For each request the marks of its writers at a snapshot, by output name."""
        return checkpoint.read_info(checkpoint.step_path(self.folder, step))["marks"]

    def resumed(self, generator, step: int):
        """The items of the call from a snapshot on."""
        path = checkpoint.step_path(self.folder, step)
        restore: Callable = lambda like: checkpoint.restore(path, like)  # noqa: E731
        return generator.resume(self.requests, checkpoint.read_info(path)["info"], restore)

    def remove(self) -> None:
        """Forgets the call."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are still there
            self.folder.parent.rmdir()


def key(requests: Sequence[Request], prints: Sequence[str], size: int) -> str:
    """Names a call by what decides its outputs, and by the rows that it is padded to.

    A snapshot holds all of them: a run with batches of another size begins the call anew.
    """
    pairs = [[request.id, text] for request, text in zip(requests, prints, strict=True)]
    return hash_json([size, pairs])[:32]


def clear_stale(output: Path, ours: Collection[str], wanted: Collection[str]) -> None:
    """Removes the folders of calls that will not be made again.

    Args:
      ours: ids of the requests that no other living process works on.
      wanted: keys of the calls that this process is going to make.
    """
    for folder in sorted((output / FOLDER).glob("*")):
        try:
            ids = json.loads((folder / REQUESTS).read_text())
        except (OSError, ValueError):
            continue
        if folder.name not in wanted and set(ids) <= set(ours):
            shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        (output / FOLDER).rmdir()
