"""`events.jsonl`: what happens in a run, line by line, for other programs to follow.

Each line is an object with `time` (seconds since 1970), `share`, `event` and what belongs to it:

| event | with |
|---|---|
| start | todo, skipped, broken: numbers of requests |
| loaded | seconds, devices |
| done | id, seconds by stage, outputs |
| failed | id, kind (see causes.py), error |
| end | done, skipped, failures (numbers), kinds by id, seconds by stage, exit_code, stopped, rest |

All processes of a folder append to one file; a kill can leave half a line, which the next one ends.
Where the file cannot be written, say on a full disk, the run goes on without, and says so once.
"""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from jaxvid.runs.share import Share

NAME, SCALARS = "events.jsonl", "tensorboard"
FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Events:
    """Tells of one process; `scalars` also writes seconds of each stage for TensorBoard."""

    def __init__(self, folder: Path, share: Share, scalars: bool = False):
        self._share, self._done, self._writer, self._silent = str(share), 0, None, False
        self._file = os.open(folder / NAME, FLAGS, 0o666)
        size = os.fstat(self._file).st_size
        self._begin = "\n" if size and os.pread(self._file, 1, size - 1) != b"\n" else ""
        if scalars:
            from tensorboardX import SummaryWriter  # takes seconds to import

            path = folder / SCALARS / f"share-{share.index}-of-{share.count}"
            self._writer = SummaryWriter(str(path))

    def tell(self, event: str, **facts):
        line = {"time": round(time.time(), 3), "share": self._share, "event": event, **facts}
        text = self._begin + json.dumps(line) + "\n"
        self._begin = ""
        with self._excused():
            if os.write(self._file, data := text.encode()) < len(data):
                self._begin = "\n"

    def done(self, row: Mapping):
        """row: of the manifest."""
        self.tell("done", id=row["id"], seconds=row["seconds"], outputs=row["outputs"])
        self._done += 1
        if self._writer:
            with self._excused():
                for stage, seconds in row["seconds"].items():
                    self._writer.add_scalar(f"seconds/{stage}", seconds, self._done)

    def failed(self, row: Mapping):
        self.tell("failed", id=row["id"], kind=row["kind"], error=row["error"])

    def close(self):
        os.close(self._file)
        if self._writer:
            with self._excused():
                self._writer.close()

    @contextlib.contextmanager
    def _excused(self):
        """What was made is worth more than what is told of it."""
        try:
            yield
        except OSError as error:
            if not self._silent:
                print(f"events cannot be written: {error.strerror}", flush=True)
            self._silent = True
