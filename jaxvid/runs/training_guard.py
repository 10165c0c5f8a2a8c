"""What a run must be guarded against: a second run in its folder, other settings, a stop signal."""

import contextlib
import math
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np

from jaxvid.core.distributed import whole
from jaxvid.core.files import locked, remove_temporaries


@contextlib.contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Keeps a second run out of the folder, where the file system has locks.

    Raises:
      ValueError: another process trains into it.
    """
    if jax.process_index() > 0:
        yield
        return
    refusal = f"another process trains into run.output={folder}; wait for it or name another folder"
    with locked(folder, refusal):
        remove_temporaries(folder)  # what a killed run left
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()  # if nothing came of the run


def check_same(folder: Path, wanted: Mapping[str, Mapping], info: Mapping) -> None:
    """ValueError, which names the first difference, if a checkpoint is of another run.

    Args:
      wanted: settings by section that a resumed run must share with the one it continues.
      info: the checkpoint's, with the same under "setup".
    """
    found = info.get("setup")
    if found is None:
        raise ValueError(f"{folder} holds no training run of ours; use another run.output")
    for section, fields in wanted.items():
        if section not in found:
            raise ValueError(f"{folder} holds a run of another kind; use another run.output")
        for field, value in fields.items():
            old = _tuples(found[section].get(field))
            if old != value:
                raise ValueError(
                    f"{folder} holds a run with {section}.{field}={old!r}, not {value!r}; "
                    "use its settings or another run.output"
                )


def _tuples(value):
    """A value that came through JSON, with its lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


class StopSignal:
    """True once SIGTERM or SIGUSR1 came (a SLURM time limit) or the time is over."""

    def __init__(self, minutes: float):
        self.asked = False
        self.end = time.monotonic() + 60 * minutes if minutes else math.inf
        for name in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(name, self._ask)

    def _ask(self, *_):
        self.asked = True

    def __call__(self) -> bool:
        """The same in every process, of which one may be asked an update before the others."""
        asked = self.asked or time.monotonic() > self.end
        return bool(whole(np.array([asked])).any())
