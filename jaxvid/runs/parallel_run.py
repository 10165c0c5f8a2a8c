"""Gives the videos of a folder to workers, until all are done or given up.

Exit codes are those of runner.py. With `round_robin` the n-th video belongs to worker n modulo
their number; with `dynamic` each worker takes the longest (in bytes) that is left.
"""

import collections
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from jaxvid.runs import parallel, parallel_marker, parallel_page
from jaxvid.runs.causes import INPUT
from jaxvid.runs.manifest import DONE, FAILED, lock
from jaxvid.runs.outcome import PARTIAL, STOPPED, Interrupted, stoppable
from jaxvid.runs.parallel import ParallelConfig, Video
from jaxvid.runs.parallel_table import Table
from jaxvid.runs.parallel_worker import POLL, Outcome, RefusedError, Worker
from jaxvid.runs.recorder import one_line

LOCK = ".run_parallel.lock"
EXAMPLES = 8  # videos that a script is shown at first
REST = "the same command again does the rest"
REFUSALS, USAGE = 3, 2  # a run that begins with so many attempts of this exit code stops


@dataclasses.dataclass
class Results:
    """What became of the videos."""

    done: list[Video] = dataclasses.field(default_factory=list)
    skipped: list[Video] = dataclasses.field(default_factory=list)  # there from an earlier run
    failed: list[tuple[Video, Outcome]] = dataclasses.field(default_factory=list)
    failed_before: list[Video] = dataclasses.field(default_factory=list)  # and not retried
    stopped: str = ""
    exit_code: int = 0

    def lines(self) -> list[str]:
        lines = [f"failed: {v.path}: {o.kind}: {o.cause}{log_of(v)}" for v, o in self.failed]
        if self.stopped:
            lines.append(f"stopped: {self.stopped}")
        before = f", {len(self.failed_before)} failed before" if self.failed_before else ""
        counts = f"{len(self.done)} done, {len(self.skipped)} skipped, {len(self.failed)} failed"
        return [*lines, counts + before]


def run_parallel(config: ParallelConfig) -> int:
    """Works through the folder and prints how it goes; returns the exit code.

    Raises:
      ValueError: no videos, too few GPUs, another run_parallel at work here, or a script that
        refuses its arguments.
    """
    gpus = parallel.gpu_names(config.num_gpus)
    videos, left_out = parallel.find_videos(config.video_root)
    for line in left_out:
        print(line, flush=True)
    root = Path(config.video_root).expanduser().absolute()
    with _only_one(root):
        results = _Run(config, videos, gpus, root / parallel.LOG).run()
        if not config.plan:
            print(parallel_page.write(root, videos), flush=True)
    if results.stopped or not config.plan:
        print(*results.lines(), sep="\n", flush=True)
    return results.exit_code


class _Run:
    def __init__(self, config: ParallelConfig, videos: Sequence[Video], gpus: Sequence[str], log):
        """log: of what a script says before its first video."""
        self.config, self.videos, self.log, self.results = config, videos, log, Results()
        self.workers = [Worker(config, i, gpu) for i, gpu in enumerate(gpus)]
        self.codes = []  # exit codes of all attempts

    def run(self) -> Results:
        results = self.results
        try:
            with stoppable(), self._workers_end():
                self.identity = self._identity()
                todo = [video for video in self.videos if self._is_left(video)]
                start = [] if self.config.plan else todo
                self.queues = queues(start, len(self.workers), self.config.schedule)
                self.table = Table(self.workers, results, len(todo))
                with self.table:
                    if self.config.plan:
                        print("".join(f"to do: {video.path}\n" for video in todo), end="")
                    while self._step():
                        self.table.show()
                        time.sleep(POLL)
        except Interrupted as error:
            number = error.args[0]
            results.stopped = f"interrupted by {signal.Signals(number).name}; {REST}"
            results.exit_code = 128 + number
        except RefusedError as error:
            raise ValueError(f"--script={self.config.script}: {error}") from None
        except OSError as error:  # say, the disk is full
            results.stopped, results.exit_code = f"{one_line(error)}; {REST}", STOPPED
        finally:
            if self.log.exists() and not self.log.stat().st_size:
                self.log.unlink()
        if results.failed or results.failed_before:
            results.exit_code = results.exit_code or PARTIAL
        return results

    def _identity(self) -> str:
        """What is done to each video; a script that is kept is started and says its part."""
        usable = [video for video in self.videos if not video.error]
        if not self.config.keep or not usable:
            return self.config.identity()
        made = [v for v in usable if parallel_marker.read(v).get("status") == DONE]
        certain = len(usable) - len(made) * self.config.resume  # to be there for a worker
        self.log.unlink(missing_ok=True)
        for worker in self.workers:
            worker.examples = [video.path for video in usable[:: -(-len(usable) // EXAMPLES)]]
        for worker in self.workers[: 1 if self.config.plan else max(1, certain)]:
            worker.start(self.log)
        return self.config.identity(self.workers[0].wait_until_ready(self.log))

    def _is_left(self, video: Video) -> bool:
        """Sorts out what needs no worker."""
        config, results = self.config, self.results
        if video.error:
            results.failed.append((video, Outcome(INPUT, video.error)))
        elif config.resume and not config.retry_failed and self._failed_before(video):
            results.failed_before.append(video)
        elif config.resume and parallel_marker.is_finished(video, self.identity):
            parallel_marker.restore(video)
            results.skipped.append(video)
        else:
            return True
        return False

    def _failed_before(self, video: Video) -> bool:
        return parallel_marker.has_failed(video, self.identity)

    def _step(self) -> bool:
        """Takes what workers have finished and gives them more; whether anything is left."""
        self._check_limit()
        for worker, queue in zip(self.workers, self.queues, strict=True):
            if worker.video is not None and (outcome := worker.outcome()) is not None:
                self._take(worker, queue, outcome)
                self._check_limit()
            if worker.video is None and queue and not self.results.stopped:
                self._give(worker, queue.popleft())
        busy = any(worker.video is not None for worker in self.workers)
        return busy or (any(self.queues) and not self.results.stopped)

    def _give(self, worker: Worker, video: Video) -> None:
        if video.gone:
            video.error = parallel.GONE
            outcome = Outcome(INPUT, video.error)
            self.results.failed.append((video, outcome))
            self.table.log(worker, video, outcome, 0.0, again=False)
            self._check_limit()
            return
        video.output.mkdir(parents=True, exist_ok=True)
        parallel_marker.write(video, parallel_marker.RUNNING, self.identity)
        worker.give(video)

    def _check_limit(self) -> None:
        count, limit = len(self.results.failed), self.config.failure_limit
        if count >= limit and not self.results.stopped:
            self.results.stopped = f"{count} failed, the limit is {limit}; {REST}"
            self.results.exit_code = STOPPED

    def _take(self, worker: Worker, queue: collections.deque, outcome: Outcome) -> None:
        video, worker.video = worker.video, None
        seconds = round(time.monotonic() - worker.since, 3)
        if outcome.kind and video.gone:
            outcome = Outcome(INPUT, parallel.GONE)
        told = self.config.names_output
        if told and not outcome.kind and not parallel_marker.sizes(video.output):
            outcome = outcome._replace(cause=f"wrote nothing into {video.output}")
        self.codes.append(outcome.code)
        if self.codes == [USAGE] * REFUSALS:
            self.results.exit_code = STOPPED
            self.results.stopped = (
                f"the first {REFUSALS} attempts ended with {outcome.cause}; if that is the "
                "arguments' fault, mend them"
            )
        again = outcome.kind not in ("", INPUT) and video.attempts <= self.config.retries
        facts = {"kind": outcome.kind, "cause": outcome.cause, "seconds": seconds}
        facts["gpu"] = worker.gpu
        if again:
            queue.append(video)
        elif outcome.kind:
            worker.failed += 1
            self.results.failed.append((video, outcome))
            parallel_marker.write(video, FAILED, self.identity, **facts)
        else:
            worker.done += 1
            (self.results.skipped if outcome.skipped else self.results.done).append(video)
            parallel_marker.write(video, DONE, self.identity, **facts)
        self.table.log(worker, video, outcome, seconds, again)

    @contextlib.contextmanager
    def _workers_end(self):
        """However this ends, no process stays: told first, then killed after `grace` seconds."""
        try:
            yield
            deadline = time.monotonic() + self.config.grace
        except BaseException:
            deadline = time.monotonic() + self.config.grace
            for worker in self.workers:
                worker.tell(signal.SIGTERM)
            raise
        finally:
            try:
                for worker in self.workers:
                    worker.end(deadline)
            finally:  # a second Ctrl-C waits no longer
                for worker in self.workers:
                    worker.end(0)


def log_of(video: Video) -> str:
    """Where to read more, if anything was tried."""
    return f"; log: {video.log}" if video.attempts else ""


def queues(todo: Sequence[Video], workers: int, schedule: str) -> list[collections.deque]:
    """What each worker takes its videos from; with `dynamic` it is the same queue for all."""
    if schedule == "dynamic":
        return [collections.deque(sorted(todo, key=lambda v: -v.bytes))] * workers
    return [collections.deque(todo[i::workers]) for i in range(workers)]


@contextlib.contextmanager
def _only_one(root: Path):
    try:
        file = os.open(root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise ValueError(
            f"cannot write to {root}: {error.strerror}; results go beside the videos"
        ) from None
    try:
        if not lock(file, root, wait=False) or not _is_file_of(file, root / LOCK):
            raise ValueError(
                f"another run_parallel is at work in {root}: wait for it, or give each a folder "
                "of its own"
            )
        try:
            yield
        finally:
            (root / LOCK).unlink(missing_ok=True)
    finally:
        os.close(file)


def _is_file_of(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
