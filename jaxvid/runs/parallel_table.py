"""A live table of workers in a terminal; elsewhere one line for each video that ends."""

import sys
import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as Rows
from rich.text import Text

from jaxvid.runs.causes import last_line, log_tail
from jaxvid.runs.progress import clock

EVERY = 0.5  # seconds between two pictures


class Table:
    """Used as a context manager; `show` is called often and draws now and then."""

    def __init__(self, workers: Sequence, results, total: int):
        """workers: parallel_worker.Worker; results: parallel_run.Results, as it grows."""
        self.workers, self.results, self.total = workers, results, total
        self._start, self._drawn, self._ended = time.monotonic(), 0.0, 0
        self._console = Console(file=sys.stdout, soft_wrap=True)
        self._live = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self):
        lines = [f"{self.total} videos to do, {len(self.results.skipped)} already done"]
        lines += [f"cannot run: {v.path}: {o.cause}" for v, o in self.results.failed]
        for line in lines:
            self._console.print(line, markup=False, highlight=False)
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_):
        if self._live:
            self._live.stop()

    def show(self) -> None:
        if self._live and time.monotonic() - self._drawn > EVERY:
            self._drawn = time.monotonic()
            self._live.update(self.picture(), refresh=True)

    def log(self, worker, video, outcome, seconds: float, again: bool) -> None:
        """Tells how an attempt at a video ended."""
        self._ended += not again
        word = "done" if not outcome.kind else "failed, will try again" if again else "failed"
        word = "already done" if outcome.skipped else word
        line = f"{self.line()}: GPU {worker.gpu}: {video.path}: {word}, {clock(seconds)}"
        line += "".join(f": {text}" for text in (outcome.kind, outcome.cause) if text)
        self._console.print(line, markup=False, highlight=False)

    def line(self) -> str:
        """`3/12, 4.1/min, 2:10 left`."""
        seconds = time.monotonic() - self._start
        text = f"{self._ended}/{self.total}"
        if not self._ended:
            return text
        left = seconds * (self.total - self._ended) / self._ended
        return f"{text}, {60 * self._ended / seconds:.3g}/min, {clock(left)} left"

    def picture(self) -> Group:
        rows = Rows(box=None, pad_edge=False, expand=True)
        for name in ("GPU", "video", "time", "at", "done", "failed"):
            width = {"video": {"max_width": 40}, "at": {"ratio": 1}}.get(name, {})  # what is left
            rows.add_column(name, no_wrap=True, overflow="ellipsis", **width)
        for worker in self.workers:
            video, taken, stage = "-", "", ""
            if worker.video is not None:
                video = worker.video.path.name
                taken = clock(time.monotonic() - worker.since)
                stage = last_line(log_tail(worker.video.log), 60)
            cells = (worker.gpu, video, taken, stage, str(worker.done), str(worker.failed))
            rows.add_row(*(Text(cell) for cell in cells))
        return Group(rows, Text(self.line()))
