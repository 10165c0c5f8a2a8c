"""Requests that several processes make together: the first one leads, the others follow.

All of them hold parts of the same arrays and have to run the same programs in the same order. Only
the leader looks at the output folder, decides what is made, writes it, and says when it is enough.
SIGTERM to any of them lets all stop after the same item. If one of them dies, JAX ends the others.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from jax.experimental import multihost_utils

from jaxvid.core.distributed import told
from jaxvid.runs.halfway import Halfway
from jaxvid.runs.requests import Generator, Request, Snapshot


class ProcessLostError(Exception):
    """A process that took part is gone."""


class Pace:
    """Counts the items of all calls, so that the processes stop after the same one."""

    def __init__(self):
        self._items = 0

    def stop(self) -> bool:
        """Whether this item is the last, since a process got SIGTERM; all of them ask after each.

        JAX's preemption service hears the signal; nothing waits for a device.
        """
        self._items += 1
        return multihost_utils.reached_preemption_sync_point(self._items)


class Leader:
    """Tells the other processes what to do; alone, it tells nobody."""

    def __init__(self, active: bool):
        self._active, self._busy, self._pace = active, False, Pace()

    @contextlib.contextmanager
    def order(self, **words) -> Iterator[None]:
        """The others do what the words say while the body does the same here."""
        if self._active:
            told(words)
        self._busy = True
        yield
        self._busy = False  # after an exception nobody knows where the others are

    def check_others(self):
        """After an exception, which the others should have met as well: whether they are there.

        Raises:
          ProcessLostError: one of them is not; the exception tells nothing about the request.
        """
        if not self._active:
            return
        try:
            told({})
        except Exception as error:
            self._busy = True
            raise ProcessLostError(f"another process of the run has ended: {error}") from error

    def stop(self) -> bool:
        """See `Pace`; alone, never."""
        if self._active and self._pace.stop():
            self._busy = False  # the others stop here, too
            return True
        return False

    def dismiss(self):
        """The others may go, unless they are in the middle of something."""
        if self._active and not self._busy:
            told(None)

    def leave(self, code: int):
        """Ends the process at once if the others are in the middle of something.

        JAX then ends them; a usual exit would wait minutes for them to come along.
        """
        if self._active and self._busy:
            sys.stdout.flush()
            os._exit(code)


def follow(
    load: Callable[[list[Request]], Generator], requests: Sequence[Request], output: Path
) -> int:
    """Does what the leader orders until it says no more; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the leader decides
    known, pace, generator = {request.id: request for request in requests}, Pace(), None
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as reader:
        while (order := told(None)) is not None:
            if "load" in order:
                generator = load([known[id] for id in order["load"]])
            if "batch" not in order:
                continue
            batch = [known[id] for id in order["batch"]]
            prefetch(reader, generator, [known[id] for id in order["next"]])
            prints, size = order["prints"], generator.batch_size
            halfway = Halfway(output, batch, prints, size) if prints else None
            with contextlib.suppress(Exception):  # the leader has it, too, and records it
                _make(generator, batch, halfway, order["step"], pace)
    return 0


def prefetch(
    reader: ThreadPoolExecutor,
    generator: Generator,
    requests: Sequence[Request],
    look: Callable[[Request], object] = id,
) -> Future | None:
    """Lets the generator read the inputs of the next call, if it can; the result is the seconds.

    look: called with each request before, to know the inputs as they are read.
    """
    if not (requests and hasattr(generator, "prefetch")):
        return None
    return reader.submit(_read, generator, list(requests), look)


def _read(generator: Generator, requests: list[Request], look) -> float:
    start = time.monotonic()
    with contextlib.suppress(Exception):  # the call itself will meet it again, and is recorded
        for request in requests:
            look(request)
        generator.prefetch(requests)
    return time.monotonic() - start


def begin(generator: Generator, batch: list[Request], halfway: Halfway | None, step: int):
    """The items of a call: from the start, or from a snapshot of an earlier life."""
    return halfway.resumed(generator, step) if step else generator.generate(batch)


def _make(generator, batch: list[Request], halfway: Halfway | None, step: int, pace: Pace):
    for item in begin(generator, batch, halfway, step):
        if isinstance(item, Snapshot):
            step += 1
            halfway.save(step, item)
        if pace.stop():
            return
