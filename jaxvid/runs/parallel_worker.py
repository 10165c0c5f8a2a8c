"""One worker of `run_parallel`: starts the process of a GPU, follows it, ends it."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxvid.runs.causes import TIMEOUT, explain_exit, last_line, log_tail
from jaxvid.runs.parallel import ParallelConfig, Video
from jaxvid.runs.serve import ANSWERS

POLL = 0.02  # seconds
LAUNCHED = (  # how variables begin that would make a script take a part of its work
    *("SLURM_ARRAY_", "SLURM_STEP_", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
    *("SLURM_NTASKS", "OMPI_COMM_WORLD_", "PMI_", "PMIX_", "JAXVID_PROCESS", "JAXVID_COORDINATOR"),
)


class Outcome(NamedTuple):
    """How one attempt at a video ended; `kind` is empty if it went well."""

    kind: str = ""
    cause: str = ""  # or what is odd about a success
    skipped: bool = False  # it was there already
    code: int = 0  # of a process that ended by itself


class RefusedError(Exception):
    """A script that is kept ended before it took a video: the command is wrong, not the video."""


class Worker:
    """The process of one GPU, started when there is something to do, and again after a crash."""

    def __init__(self, config: ParallelConfig, index: int, gpu: str):
        self.config, self.index, self.gpu = config, index, gpu
        self.video: Video | None = None
        self.since = 0.0
        self.done = self.failed = 0
        self.examples: Sequence[Path] = ()  # of videos to come, for a script that is kept
        self._process, self._back, self._answers = None, None, b""
        self._told, self._kill_at = None, 0.0
        self._first_log = Path()  # of what a process says before it is ready

    def start(self, log: Path) -> None:
        """Starts a script that is kept before there is a video for it."""
        self.since = time.monotonic()
        self._start(log)

    def wait_until_ready(self, log: Path) -> str:
        """What a script that was started says of itself, see serve.py.

        Raises:
          RefusedError: see there.
        """
        while self._told is None:
            time.sleep(POLL)
            ended = self._process.poll()
            self._answer()
            if self._told is None and ended is not None:
                said = _last_words(log)
                why = said if said and ended else f": it does not call serve.serve{said}"
                raise RefusedError(f"exit code {ended} before its first video{why}")
            if self._is_late():
                late = f"not ready after {self.config.timeout:g} s"
                raise RefusedError(late + _last_words(log))
        return self._told

    def give(self, video: Video) -> None:
        """Starts to work on a video."""
        self.video, self.since = video, time.monotonic()
        video.attempts += 1
        with open(video.log, "ab") as log:
            log.write(f"--- attempt {video.attempts}, GPU {self.gpu}\n".encode())
        if self._process is not None and self._process.poll() is not None:
            self._forget()  # it died after its last answer
        if self._process is None:
            self._start(video.log)
        if self.config.keep:
            self._ask({"video": video.path, "output": video.output, "log": video.log})

    def outcome(self) -> Outcome | None:
        """The end of the present attempt, None while it lasts. Never waits."""
        ended = self._process.poll()
        if self._kill_at:
            return self._timed_out(ended)
        answer = self._answer() if self.config.keep else None
        if answer is not None:
            return Outcome(answer["kind"], answer["cause"], answer["skipped"])
        if ended is not None:
            return self._exited(ended)
        if self._is_late():
            self.tell(signal.SIGTERM)
            self._kill_at = time.monotonic() + self.config.grace
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

    def _start(self, log: Path) -> None:
        config, video = self.config, self.video
        self._first_log = log
        command, pipes = [sys.executable, config.program], {}
        env = environment(self.gpu)
        if config.keep:
            command += [*config.arguments, "--serve"]
            reader, writer = os.pipe()  # beside standard output, on which anything may be printed
            os.set_blocking(reader, False)
            self._back, env[ANSWERS] = os.fdopen(reader, "rb", buffering=0), str(writer)
            pipes = {"stdin": subprocess.PIPE, "pass_fds": (writer,)}
        else:
            command += config.command_of(video.path, video.output)
        with open(log, "ab") as file:
            self._process = subprocess.Popen(
                command,
                bufsize=0,
                **{"stdin": subprocess.DEVNULL, **pipes},
                stdout=file,
                stderr=file,
                env=env,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        if config.keep:
            os.close(writer)
            self._ask({"examples": list(self.examples)})

    def _ask(self, message: dict) -> None:
        line = json.dumps(message, default=str) + "\n"
        with contextlib.suppress(BrokenPipeError):  # it died; `outcome` will tell
            self._process.stdin.write(line.encode())

    def _answer(self) -> dict | None:
        """The next answer of a process that is kept, if there is one."""
        while chunk := self._back.read(65536):
            self._answers += chunk
        while b"\n" in self._answers:
            line, self._answers = self._answers.split(b"\n", 1)
            answer = json.loads(line)
            if "ready" not in answer:
                return answer
            self._told = answer["ready"]
        return None

    def _is_late(self) -> bool:
        return 0 < self.config.timeout < time.monotonic() - self.since

    def _timed_out(self, ended: int | None) -> Outcome | None:
        """After SIGTERM: waits for the process to end, after `grace` seconds kills it."""
        if ended is None:
            if time.monotonic() > self._kill_at:
                self.tell(signal.SIGKILL)
            return None
        self.tell(signal.SIGKILL)  # what it may have left behind
        self._forget()
        return Outcome(TIMEOUT, f"not done after {self.config.timeout:g} s (--timeout)")

    def _exited(self, code: int) -> Outcome:
        self.tell(signal.SIGKILL)
        log = self._first_log if self._told is None else self.video.log  # see serve.py
        self._forget()
        if not code and not self.config.keep:
            return Outcome()
        return Outcome(*explain_exit(code, log), code=code)

    def _forget(self) -> None:
        for pipe in (self._process and self._process.stdin, self._back):
            if pipe:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process, self._back, self._answers = None, None, b""
        self._told, self._kill_at = None, 0.0


def environment(gpu: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a worker: it sees one GPU, and no launcher's or array's other tasks."""
    kept = {k: v for k, v in environ.items() if not k.startswith(LAUNCHED)}
    return kept | {"CUDA_VISIBLE_DEVICES": gpu, "PYTHONUNBUFFERED": "1"}


def _last_words(log: Path) -> str:
    last = last_line(log_tail(log), longest=1000)
    return f": {last}; log: {log}" if last else ""


def _die_with_parent() -> None:
    """Asks Linux to end this process when run_parallel is killed; elsewhere it goes on."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
