"""How a run ends: what it did, why it stopped, the exit code.

Exit codes: 0 all is done; 3 some requests failed, the others are done; 4 stopped early (full disk,
no memory to load, too many failures); 130 and 143 interrupted by SIGINT or SIGTERM. Scripts add 2
for a mistake in the command. The same command again does what is left.
"""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterator

from jaxvid.core.files import disk_full
from jaxvid.runs.causes import ERROR, MEMORY, kind_of
from jaxvid.runs.config import RunConfig
from jaxvid.runs.recorder import one_line
from jaxvid.runs.together import ProcessLostError

PARTIAL, STOPPED = 3, 4


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM came; the argument is its number."""


class TooManyFailures(Exception):  # noqa: N818
    """The limit of RunConfig is reached."""


@dataclasses.dataclass
class Summary:
    """What a run did. `seconds`: of loading, reading, generating and writing, which overlap."""

    done: int
    skipped: int
    failures: list[tuple[str, str]]  # request id, cause
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)  # by request id: causes.py
    stopped: str = ""  # why the run ended before its last request
    exit_code: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    rest: str = "the same command again does the rest"  # if it was stopped

    def lines(self) -> list[str]:
        """The last lines of a run."""
        lines = [f"failed: {self.explain(id, cause)}" for id, cause in self.failures]
        if self.seconds:
            lines.append(", ".join(f"{k} {v:.1f} s" for k, v in self.seconds.items()))
        if self.stopped:
            lines.append(f"stopped: {self.stopped}; {self.rest}")
        counts = f"{self.done} done, {self.skipped} skipped, {len(self.failures)} failed"
        return [*lines, counts]

    def explain(self, id: str, cause: str) -> str:
        """One line about a failure; its kind is named where the cause may not tell."""
        kind = self.kinds.get(id, ERROR)
        return f"{id}: {cause}" if kind == ERROR else f"{id}: {kind}: {cause}"


@contextlib.contextmanager
def stoppable(lead: bool = False) -> Iterator[None]:
    """Turns SIGTERM, which schedulers send, into the exception that Ctrl-C raises.

    A leader leaves SIGTERM to JAX, see together.Pace.
    """

    def interrupt(number, _frame):
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT,) if lead else (signal.SIGINT, signal.SIGTERM)
    earlier = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def why_stopped(error: BaseException, config: RunConfig, begun=False) -> tuple[str, int]:
    """A reason and an exit code; errors that are not meant to stop a run are raised again.

    begun: the networks are loaded, so that an OSError tells of the output folder.
    """
    if isinstance(error, Interrupted):
        return f"interrupted by {signal.Signals(error.args[0]).name}", 128 + error.args[0]
    if isinstance(error, TooManyFailures):
        return str(error), STOPPED
    if disk_full(error):
        return f"the disk of {error.filename or config.folder} is full", STOPPED
    if kind_of(error) == MEMORY or (begun and isinstance(error, OSError | ProcessLostError)):
        return one_line(error), STOPPED
    raise error
