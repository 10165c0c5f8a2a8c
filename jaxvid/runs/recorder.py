"""The writing half of a run: encodes, renames and records on its own thread."""

import contextlib
import datetime
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jaxvid.core.files import InputError, disk_full
from jaxvid.runs.causes import kind_of
from jaxvid.runs.events import Events
from jaxvid.runs.fingerprint import InputHashes, Provenance, code_version, fingerprint
from jaxvid.runs.halfway import Halfway
from jaxvid.runs.manifest import DONE, FAILED, Manifest
from jaxvid.runs.requests import Chunk, Request
from jaxvid.runs.staging import Staging
from jaxvid.runs.writers import open_marked_writer, open_writer

PENDING = 8  # chunks waiting to be written; the generator waits when there are more
LONGEST_CAUSE = 300  # characters; the traceback in the manifest holds the rest


class Job:
    """One request on its way: its open writers and what went wrong."""

    def __init__(self, number: int, request: Request):
        self.number, self.request = number, request
        self.writers = {}  # output name -> writer
        self.error = None  # the exception that spoilt it
        self.halfway, self.index = None, 0  # of a call that can be gone on with, and which of it
        self.write_seconds = 0.0

    def discard(self):
        for writer in self.writers.values():
            with contextlib.suppress(Exception):
                writer.discard()
        self.writers = {}


class Recorder:
    """Takes chunks and outcomes in the order of the calls, works on them in the background.

    A full disk, or anything wrong with the manifest, ends the run: from then on every call
    raises what happened.
    """

    def __init__(
        self,
        manifest: Manifest,
        staging: Staging,
        hashes: InputHashes,
        provenance: Provenance,
        events: Events,
    ):
        self.devices = ""  # recorded with each result, once it is known
        self.done = 0
        self.failures = []  # (request id, cause)
        self.kinds = {}  # of these causes, see causes.py
        self.seconds = 0.0  # spent writing
        self.fatal = None  # the exception that ends the run
        self._manifest, self._staging, self._hashes = manifest, staging, hashes
        self._provenance, self._events = provenance, events
        self._slots = threading.BoundedSemaphore(PENDING)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recorder")

    def begin(self, jobs: Sequence[Job]) -> list[str]:
        """Notes what is about to be made, for the case that the process is killed.

        Returns the fingerprints; raises InputError if an input is not there.
        """
        requests = [job.request for job in jobs]
        prints = list(map(self.fingerprint, requests))
        facts = {
            request.id: {"seed": request.seed, "options": request.options, "fingerprint": print_}
            for request, print_ in zip(requests, prints, strict=True)
        }
        self._staging.begin(facts, self._manifest)
        return prints

    def write(self, job: Job, chunk: Chunk):
        """Appends a chunk; the generator must not change its array afterwards."""
        self._submit(self._write, job, chunk.name, chunk.frames)

    def finish(self, job: Job, seconds: dict):
        """All chunks are there: completes the files and records the request."""
        self._submit(self._finish, job, seconds)

    def fail(self, job: Job, error: BaseException):
        """Drops the files and records the failure."""
        job.error = job.error or error
        self._count(job)
        self._submit(self._record_failure, job)

    def drop(self, job: Job):
        """Drops the files and records nothing, since the request will be tried again."""
        self._submit(job.discard)

    def marks(self, jobs: Sequence[Job]) -> list[dict]:
        """Waits until all chunks are on the disk; returns each job's marks by output name."""
        return self._ask(lambda: [self._marks(job) for job in jobs])

    def reopen(self, jobs: Sequence[Job], marks: Sequence[dict]):
        """Opens the files of an earlier life as they were at those marks.

        Raises:
          ValueError or OSError: a file is not what it was; none is open then.
        """

        def opened():
            try:
                for job, own in zip(jobs, marks, strict=True):
                    self._reopen(job, own)
            except Exception:
                for job in jobs:
                    job.discard()
                raise

        self._ask(opened)

    def forget(self, halfway: Halfway):
        """Nothing needs to go on from there any more."""
        self._submit(halfway.remove)

    def fingerprint(self, request: Request) -> str:
        """What decides the request's outputs; raises ValueError if an input is not there."""
        return fingerprint(request, self._hashes.of_request(request), self._provenance)

    def close(self):
        """Waits until all is written; raises if that was not possible."""
        self._thread.shutdown(wait=True)
        if self.fatal:
            raise self.fatal

    def _submit(self, task: Callable, *args: Any):
        self._slots.acquire()
        if self.fatal:
            self._slots.release()
            raise self.fatal
        self._thread.submit(self._run, task, *args)

    def _ask(self, task: Callable):
        """What a task returns, or raises, after all that came before it was done."""

        def answer():
            if self.fatal:
                raise self.fatal
            return task()

        return self._thread.submit(answer).result()

    def _run(self, task: Callable, *args: Any):
        start = time.monotonic()
        try:
            if not self.fatal:
                task(*args)
        except BaseException as error:
            self.fatal = error
        finally:
            self.seconds += time.monotonic() - start
            self._slots.release()

    def _write(self, job: Job, name: str, frames: Any):
        if job.error:
            return
        start = time.monotonic()
        with self._blamed_on(job):
            if name not in job.writers:
                job.writers[name] = self._open(job, name)
            job.writers[name].write(frames)
        job.write_seconds += time.monotonic() - start

    def _open(self, job: Job, name: str):
        if name not in job.request.outputs:
            raise KeyError(f"the mode made {name!r}, which the request does not ask for")
        if job.halfway:
            return open_marked_writer(job.halfway.path(job.index, name), job.request.options)
        path = self._staging.path(job.number, job.request.outputs[name])
        return open_writer(path, job.request.options)

    def _marks(self, job: Job) -> dict:
        if job.error:
            raise job.error
        return {name: writer.mark() for name, writer in job.writers.items()}

    def _reopen(self, job: Job, marks: dict):
        for name, mark in marks.items():
            path = job.halfway.path(job.index, name)
            job.writers[name] = open_marked_writer(path, job.request.options, mark)

    def _finish(self, job: Job, seconds: dict):
        start = time.monotonic()
        with self._blamed_on(job):
            missing = sorted(job.request.outputs.keys() - job.writers.keys())
            if missing:
                raise ValueError(f"the mode made no frames for {', '.join(missing)}")
            self._hashes.check_unchanged(job.request)
            outputs, staged = {}, {}
            for name, writer in job.writers.items():
                writer.close()
                outputs[name] = _describe(writer, job.request.outputs[name])
                staged[writer.path] = job.request.outputs[name]
            job.write_seconds += time.monotonic() - start
            row = self._row(job, DONE) | {"outputs": outputs}
            row["seconds"] = seconds | {"write": job.write_seconds}
            self._staging.commit(self._manifest, row, staged, keep=bool(job.halfway))
        if job.error:
            self._count(job)
            self._record_failure(job)
        else:
            self.done += 1
            self._events.done(row)

    def _count(self, job: Job):
        self.kinds[job.request.id] = kind_of(job.error)
        self.failures.append((job.request.id, one_line(job.error)))

    def _record_failure(self, job: Job):
        job.discard()
        row = self._row(job, FAILED) | {
            "kind": kind_of(job.error),
            "error": one_line(job.error),
            "traceback": "".join(traceback.format_exception(job.error)),
        }
        self._manifest.append(row)
        self._events.failed(row)

    @contextlib.contextmanager
    def _blamed_on(self, job: Job):
        """Errors spoil the one request, unless they would hit the next one as well."""
        try:
            yield
        except Exception as error:
            if disk_full(error):
                raise
            job.error = job.error or error  # the first one is the cause of others
            job.discard()

    def _row(self, job: Job, status: str) -> dict:
        request = job.request
        inputs, print_ = {}, ""
        with contextlib.suppress(ValueError):  # of a failed request, inputs may be missing
            inputs = self._hashes.of_request(request)
            print_ = fingerprint(request, inputs, self._provenance)
        return {
            "id": request.id,
            "status": status,
            "seed": request.seed,
            "fingerprint": print_,
            "config": self._provenance.config,
            "checkpoint": self._provenance.checkpoint,
            "inputs": inputs,
            "options": request.options,
            "code": code_version(),
            "devices": self.devices,
            "host": socket.gethostname(),
            "share": str(self._staging.share),
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }


def one_line(error: BaseException) -> str:
    """The cause as a user reads it; ValueErrors of this package need no type before them."""
    text = " ".join(str(error).split()) or "no message"
    text = text if len(text) < LONGEST_CAUSE else text[:LONGEST_CAUSE] + "..."
    return text if type(error) in (ValueError, InputError) else f"{type(error).__name__}: {text}"


def _describe(writer, file: str) -> dict:
    path = Path(writer.path)
    return {"file": file, "bytes": path.stat().st_size, "frames": writer.frames}
