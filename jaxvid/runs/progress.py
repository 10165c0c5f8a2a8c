"""One line that says how far a run is."""

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_SECONDS = 5.0  # between two lines when the output is no terminal


class Progress:
    """`3/12 done, 4.1/min, 2:10 left, denoising window 3/40`.

    Redrawn in place in a terminal, else printed as plain lines now and then. Used as a context
    manager; `log` prints a line of its own above it.
    """

    def __init__(self, total: int, finished: Callable[[], int]):
        """total: requests to make; finished: how many are behind us."""
        self.total, self.finished = total, finished
        self.stage, self.running = "starting", 0.0
        self._start = self._printed = time.monotonic()
        self._seen = set()  # first words of stages
        self._console = Console(file=sys.stdout, soft_wrap=True)
        self._live = None
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=self._text,
                transient=True,
                refresh_per_second=4,
            )

    def __enter__(self):
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_):
        if self._live:
            self._live.stop()

    def begin(self):
        """Starts the clock of the rate: loading is over."""
        self._start = time.monotonic()

    def update(self, stage: str, running: float = 0.0):
        """running: requests' worth of work done in the call that is under way."""
        self.stage, self.running = stage, running
        kind = stage.split(" ")[0]
        due = kind not in self._seen or time.monotonic() - self._printed > PLAIN_SECONDS
        self._seen.add(kind)
        if due and not self._live:
            self._printed = time.monotonic()
            print(self.line(), flush=True)

    def log(self, line: str):
        self._console.print(line, markup=False, highlight=False)

    def line(self) -> str:
        units = self.finished() + self.running
        seconds = time.monotonic() - self._start
        parts = [f"{self.finished()}/{self.total} done"]
        if units > 0 and seconds > 0:
            parts.append(f"{60 * units / seconds:.3g}/min")
            parts.append(f"{clock(seconds * (self.total - units) / units)} left")
        return ", ".join([*parts, self.stage])

    def _text(self) -> Text:
        return Text(self.line(), no_wrap=True, overflow="ellipsis")


def clock(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    minutes, seconds = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
