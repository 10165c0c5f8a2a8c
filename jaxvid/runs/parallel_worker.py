"""One worker of `run_parallel`: starts the process of a GPU, follows it, ends it."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from jaxvid.runs.causes import TIMEOUT, explain_exit
from jaxvid.runs.parallel import ParallelConfig, Video

USAGE = 2  # exit code of a script that refuses its arguments
ARRAY = ("SLURM_ARRAY_",)  # variables that would make a script take a part of its work


class Outcome(NamedTuple):
    """How one attempt at a video ended; `kind` and `cause` are empty if it went well."""

    kind: str = ""
    cause: str = ""
    skipped: bool = False  # it was there already


class RefusedError(Exception):
    """The script ended before it took its first video: the command is wrong, not the video."""


class Worker:
    """The process of one GPU, started when there is something to do, and again after a crash."""

    def __init__(self, config: ParallelConfig, index: int, gpu: str):
        self.config, self.index, self.gpu = config, index, gpu
        self.video: Video | None = None
        self.since = 0.0
        self.done = self.failed = 0
        self._process, self._answers, self._ready = None, b"", False

    def give(self, video: Video) -> None:
        """Starts to work on a video."""
        self.video, self.since = video, time.monotonic()
        video.attempts += 1
        video.output.mkdir(parents=True, exist_ok=True)
        with open(video.log, "ab") as log:
            log.write(f"--- attempt {video.attempts}, GPU {self.gpu}\n".encode())
            log.flush()
            if self._process is not None and self._process.poll() is not None:
                self._forget()  # it died after its last answer
            if self._process is None:
                self._start(log)
        if self.config.keep:
            job = {"video": video.path, "output": video.output, "log": video.log}
            line = json.dumps({name: str(path) for name, path in job.items()}) + "\n"
            with contextlib.suppress(BrokenPipeError):  # it died; `outcome` will tell
                self._process.stdin.write(line.encode())

    def outcome(self) -> Outcome | None:
        """The end of the present attempt, None while it lasts.

        Raises:
          RefusedError: see there.
        """
        ended = self._process.poll()
        answer = self._answer() if self.config.keep else None
        if answer is not None:
            return Outcome(answer["kind"], answer["cause"], answer["skipped"])
        if ended is not None:
            return self._exited(ended)
        if self.config.timeout and time.monotonic() - self.since > self.config.timeout:
            self.tell(signal.SIGTERM)
            self.end(time.monotonic() + self.config.grace)
            return Outcome(TIMEOUT, f"not done after {self.config.timeout:g} s (--timeout)")
        return None

    def tell(self, number: int) -> None:
        """Sends a signal to the process and all it has started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def end(self, deadline: float) -> None:
        """Waits until the process has ended by itself, at the deadline kills it."""
        if self._process is None:
            return
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.tell(signal.SIGKILL)  # also what it may have left behind
            self._process.wait()
            self._forget()

    def _start(self, log) -> None:
        config, video = self.config, self.video
        command = [sys.executable, str(config.script)]
        if config.keep:
            command += [*config.arguments, "--serve"]
        else:
            command += config.command_of(video.path, video.output)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=pipe if config.keep else subprocess.DEVNULL,
            stdout=pipe if config.keep else log,
            stderr=log,
            env=environment(self.gpu),
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        if config.keep:
            os.set_blocking(self._process.stdout.fileno(), False)

    def _answer(self) -> dict | None:
        """The next answer of a process that is kept, if there is one."""
        while chunk := self._process.stdout.read(65536):
            self._answers += chunk
        while b"\n" in self._answers:
            line, self._answers = self._answers.split(b"\n", 1)
            answer = json.loads(line)
            if not answer.get("ready"):
                return answer
            self._ready = True
        return None

    def _exited(self, code: int) -> Outcome:
        self.tell(signal.SIGKILL)
        refused = self.config.keep and not self._ready and code == USAGE
        self._forget()
        if not code and not self.config.keep:
            return Outcome()
        kind, cause = explain_exit(code, self.video.log)
        if refused:
            raise RefusedError(cause)
        return Outcome(kind, cause)

    def _forget(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process, self._answers, self._ready = None, b"", False


def environment(gpu: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a worker: it sees one GPU and no task of a SLURM array."""
    kept = {k: v for k, v in environ.items() if not k.startswith(ARRAY)}
    return kept | {"CUDA_VISIBLE_DEVICES": gpu, "PYTHONUNBUFFERED": "1"}


def _die_with_parent() -> None:
    """Asks Linux to end this process when run_parallel is killed; elsewhere it goes on."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
