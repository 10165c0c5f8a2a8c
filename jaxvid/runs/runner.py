"""Works off the requests of this process: batches them, isolates failures, resumes."""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from jaxvid.core.files import InputError, disk_full
from jaxvid.runs import gallery
from jaxvid.runs.config import RunConfig
from jaxvid.runs.events import Events
from jaxvid.runs.fingerprint import Provenance
from jaxvid.runs.halfway import FOLDER, Halfway, clear_stale, key
from jaxvid.runs.manifest import NAME
from jaxvid.runs.outcome import (
    PARTIAL,
    STOPPED,
    Interrupted,
    Summary,
    TooManyFailures,
    stoppable,
    why_stopped,
)
from jaxvid.runs.progress import Progress
from jaxvid.runs.recorder import Job, Recorder, one_line
from jaxvid.runs.requests import (
    Generator,
    Request,
    Snapshot,
    Stage,
    check_places,
    check_requests,
)
from jaxvid.runs.share import this_share
from jaxvid.runs.staging import open_output
from jaxvid.runs.survey import Survey, survey
from jaxvid.runs.together import Leader, begin, prefetch


def run(
    load: Callable[[list[Request]], Generator],
    requests: Sequence[Request],
    config: RunConfig,
    provenance: Provenance | None = None,
    process: tuple[int, int] = (0, 1),
    lead: bool = False,
) -> Summary:
    """Makes what is missing of this process's share and prints how it goes.

    Args:
      load: restores parameters for the requests that are left to do, if there are any.
      requests: of all processes, in the same order in each.
      provenance: hashes of config and checkpoint, part of each fingerprint.
      process: (index, count) of the processes that divide the share, see `this_share`.
      lead: the other processes of the JAX run make each request together with this one and are
        in `together.follow`. A stop in the middle of a request then ends the process here.
    Raises:
      ValueError: unsafe or colliding requests; an output folder that cannot be used.
    """
    provenance = provenance or Provenance()
    check_requests(requests)
    share, leader = this_share(config.shard, process), Leader(lead)
    try:
        with stoppable(lead), open_output(config.output, share) as (manifest, staging):
            check_places(requests, config.folder)
            found = survey(share.select(requests), config, provenance)
            for line in found.lines():
                print(line)
            events = Events(config.folder, share, config.tensorboard)
            try:
                recorder = Recorder(manifest, staging, found.hashes, provenance, events)
                summary = _Run(load, config, found, recorder, leader, events).run()
            finally:
                events.close()
            if config.gallery:
                _write_gallery(manifest, summary, {request.id for request in requests})
    except Interrupted as error:  # before the first request, or a second time
        stopped, code = why_stopped(error, config)
        summary = Summary(0, 0, [], stopped=stopped, exit_code=code)
    finally:
        leader.dismiss()
    if summary.failures:
        print(f"tracebacks of failures: {config.folder / gallery.NAME}, or {NAME} beside it")
    for line in summary.lines():
        print(line, flush=True)
    leader.leave(summary.exit_code)
    return summary


class _Run:
    """The generating half of a run, on the main thread."""

    def __init__(self, load, config, found: Survey, recorder: Recorder, leader: Leader, events):
        self.load, self.config, self.found, self.recorder = load, config, found, recorder
        self.leader, self.events = leader, events
        self.seconds = {"load": 0.0, "read": 0.0, "generate": 0.0}
        self.read_seconds = 0.0  # of the present batch
        self.begun = False
        finished = lambda: recorder.done + len(recorder.failures) - len(found.broken)  # noqa: E731
        self.progress = Progress(len(found.todo), finished)

    def run(self) -> Summary:
        start = time.monotonic()
        stopped, code = "", 0
        skipped = sum(map(len, (self.found.done, self.found.kept, self.found.failed_before)))
        counts = {"todo": len(self.found.todo), "broken": len(self.found.broken)}
        self.events.tell("start", skipped=skipped, **counts)
        try:
            try:
                self._work()
            finally:
                self.recorder.close()  # completes what was generated before a stop
        except (Exception, Interrupted) as error:
            stopped, code = why_stopped(error, self.config, self.begun)
        seconds = self.seconds | {"write": self.recorder.seconds, "total": time.monotonic() - start}
        failures = self.recorder.failures
        code = code or (PARTIAL if failures or self.found.failed_before else 0)
        kinds = self.recorder.kinds
        summary = Summary(self.recorder.done, skipped, failures, kinds, stopped, code, seconds)
        if len(self.found.broken) >= self.config.failure_limit:
            summary.rest = "nothing was made: mend these, or leave them by --no-retry-failed"
        self.events.tell("end", **dataclasses.asdict(summary) | {"failures": len(failures)})
        return summary

    def _work(self):
        for request, cause in self.found.broken:
            self.recorder.fail(Job(-1, request), InputError(cause))
        self._check_limit()
        if not self.found.todo:
            self._clear_stale([], None)
            return
        with self.progress, ThreadPoolExecutor(1, thread_name_prefix="prefetch") as reader:
            self.progress.update("loading")
            start = time.monotonic()
            with self.leader.order(load=[request.id for request in self.found.todo]):
                generator = self.load(self.found.todo)
            self.seconds["load"] = time.monotonic() - start
            self.recorder.devices = getattr(generator, "devices", "")
            told = {"seconds": self.seconds["load"], "devices": self.recorder.devices}
            self.events.tell("loaded", **told)
            self.progress.begin()
            self.begun = True
            batches = self._batches(generator)
            self._clear_stale(batches, generator)
            look = self.recorder.fingerprint
            reading = prefetch(reader, generator, requests_of(batches[0]), look)
            for batch, after in zip(batches, [*batches[1:], []], strict=True):
                self._wait(reading)
                reading = prefetch(reader, generator, requests_of(after), look)
                self._batch(generator, batch, requests_of(after))

    def _batches(self, generator: Generator) -> list[list[Job]]:
        """All calls; those that may kill the process come last and hold one request each.

        But a call that a snapshot was made of stays as it is, so that it can be gone on with.
        """
        count = len(self.found.todo) - len(self.found.deadly)
        jobs = [Job(number, request) for number, request in enumerate(self.found.todo)]
        batches = make_batches(jobs[:count], generator)
        for batch in make_batches(jobs[count:], generator):
            name = self._key(generator, batch)
            begun = name and (self.config.folder / FOLDER / name).exists()
            batches += [batch] if begun else [[job] for job in batch]
        return batches

    def _key(self, generator: Generator, jobs: list[Job]) -> str:
        """Names a call that can be gone on with; "" for others, and if an input is gone."""
        requests = requests_of(jobs)
        if not resumable(generator, requests):
            return ""
        with contextlib.suppress(InputError):  # the call itself will tell
            prints = list(map(self.recorder.fingerprint, requests))
            return key(requests, prints, generator.batch_size)
        return ""

    def _wait(self, reading: Future | None):
        """Until the inputs of the next call are read; what went wrong there, the call meets too."""
        if reading is None:
            return
        if not reading.done():
            self.progress.update("reading")
        self.read_seconds = reading.result()
        self.seconds["read"] += self.read_seconds

    def _clear_stale(self, batches, generator: Generator | None):
        """Forgets what no call is going to go on from."""
        if not (self.config.folder / FOLDER).exists():
            return  # else the inputs of all calls would be read, to know their fingerprints
        lists = (self.found.todo, self.found.done, self.found.kept, self.found.failed_before)
        ours = [request.id for one in lists for request in one]
        wanted = [self._key(generator, jobs) for jobs in batches] if self.config.resume else []
        clear_stale(self.config.folder, ours, wanted)

    def _batch(self, generator: Generator, jobs: list[Job], after: list[Request]):
        """Makes one batch; if that fails, its requests one by one, so that one fails alone.

        after: the next batch.
        """
        error = self._attempt(generator, jobs, after)
        if error is None:
            return
        if len(jobs) == 1:
            self._fail(jobs[0], error)
            return
        self.progress.log(f"a batch of {len(jobs)} failed, trying one by one: {one_line(error)}")
        for job in jobs:
            job = Job(job.number, job.request)
            error = self._attempt(generator, [job])
            if error is not None:
                self._fail(job, error)

    def _attempt(self, generator: Generator, jobs: list[Job], after=()) -> Exception | None:
        """Makes the jobs in one call; returns what went wrong, after dropping their files."""
        self._check_limit()
        start = time.monotonic()
        try:
            error = self._call(generator, jobs, after)
        finally:
            self.seconds["generate"] += time.monotonic() - start
        seconds = {"read": self.read_seconds, "generate": time.monotonic() - start}
        seconds["batch"] = len(jobs)
        if error:
            self._drop(jobs)
        else:
            for job in jobs:
                self.recorder.finish(job, seconds)
        if jobs[0].halfway:
            self.recorder.forget(jobs[0].halfway)
        return error

    def _call(self, generator: Generator, jobs: list[Job], after) -> Exception | None:
        """Makes the jobs, from the start or from where an earlier life left them."""
        requests, halfway, step = requests_of(jobs), None, 0
        try:
            prints = self.recorder.begin(jobs)
        except InputError as error:  # an input went away meanwhile
            return error
        if resumable(generator, requests):
            halfway = Halfway(self.config.folder, requests, prints, generator.batch_size)
        for index, job in enumerate(jobs):
            job.halfway, job.index = halfway, index
        if halfway:
            step = self._reopen(jobs, halfway)
        words = {"batch": [request.id for request in requests], "next": [r.id for r in after]}
        with self.leader.order(**words, prints=prints if halfway else [], step=step):
            try:
                self._take(begin(generator, requests, halfway, step), jobs, step)
            except Exception as error:
                if self.recorder.fatal:
                    raise
                if disk_full(error):
                    self._drop(job for job in jobs if not halfway)  # the others can be gone on with
                    raise
                failed = error
            else:
                return None
        self.leader.check_others()
        return failed

    def _reopen(self, jobs: list[Job], halfway: Halfway) -> int:
        """Opens the files that an earlier life left; the snapshot to go on from, 0 if none.

        Only what can never be gone on with is given up: not if a disk is full or cannot be reached.
        """
        step = halfway.step()
        try:
            if step:
                self.recorder.reopen(jobs, halfway.marks(step))
            return step
        except (FileNotFoundError, ValueError, KeyError) as error:
            if self.recorder.fatal:
                raise
            self.progress.log(f"{jobs[0].request.id}: begun anew, {one_line(error)}")
            halfway.clear()
            return 0

    def _drop(self, jobs: Iterable[Job]):
        for job in jobs:
            self.recorder.drop(job)

    def _take(self, items: Iterator, jobs: list[Job], step: int):
        """Hands on what the generator makes, beginning at the snapshot `step`."""
        stage, fraction = "generating", 0.0
        if step:
            self.progress.log(f"{jobs[0].request.id}: goes on where an earlier run was ended")
        self.progress.update(stage)
        for item in items:
            if isinstance(item, Stage):
                stage, fraction = item
            elif isinstance(item, Snapshot):
                step += 1
                jobs[0].halfway.save(step, item, lambda: self.recorder.marks(jobs))
            else:
                self.recorder.write(jobs[item.index], item)
            self.progress.update(stage, fraction * len(jobs))
            if self.leader.stop():
                raise Interrupted(signal.SIGTERM)

    def _fail(self, job: Job, error: Exception):
        self.progress.log(f"failed: {job.request.id}: {one_line(error)}")
        self.recorder.fail(job, error)
        self._check_limit()

    def _check_limit(self):
        count, limit = len(self.recorder.failures), self.config.failure_limit
        if count >= limit:
            raise TooManyFailures(f"{count} failed, the limit is {limit}")


def requests_of(jobs: Iterable[Job]) -> list[Request]:
    return [job.request for job in jobs]


def resumable(generator: Generator, requests: list[Request]) -> bool:
    """Whether a call of these requests can be gone on with in the middle."""
    return hasattr(generator, "resumable") and generator.resumable(requests)


def make_batches(jobs: Sequence[Job], generator: Generator) -> list[list[Job]]:
    """Batches of equal groups in the order of their first requests."""
    groups = {}
    for job in jobs:
        groups.setdefault(generator.group(job.request), []).append(job)
    size = generator.batch_size
    batches = [jobs[n : n + size] for jobs in groups.values() for n in range(0, len(jobs), size)]
    return sorted(batches, key=lambda jobs: jobs[0].number)


def _write_gallery(manifest, summary: Summary, asked: Collection[str]):
    """The page is made again from the whole manifest; the last process to end sees all rows."""
    try:
        with manifest.locked():
            page = gallery.write(manifest, asked)
        print(f"gallery: {page}")
    except (OSError, ValueError) as error:
        reason = "the disk is full" if disk_full(error) else one_line(error)
        print(f"gallery: not written, {reason}")
        if disk_full(error):
            summary.exit_code = summary.exit_code or STOPPED
