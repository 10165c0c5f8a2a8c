"""The inner side of a worker that is kept: it takes videos from stdin, one after another.

A script that calls `serve(work)` when it finds `--serve` among its arguments can be run with
`scripts/run_parallel.py --script=... --keep`. Whatever it prints goes to the log of the video.
"""

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable

from jaxvid.runs.causes import ERROR, INPUT, KILLED, kind_of
from jaxvid.runs.recorder import one_line

ANSWERS = "JAXVID_ANSWERS"  # names the pipe on which run_parallel listens, a number
STOPPED = (130, 143)  # exit codes of an interrupted run


class Answer(dict):
    """What is told of a video: `code` as in runner.py, `skipped`, and for failures the cause."""

    def __init__(self, code: int = 0, kind: str = "", cause: str = "", skipped: bool = False):
        kind = kind or (KILLED if code in STOPPED else ERROR if code else "")
        super().__init__(code=code, kind=kind, cause=cause, skipped=skipped)


def serve(
    work: Callable[[str, str], Answer | None],
    describe: Callable[[list[str]], str] | None = None,
) -> int:
    """Calls `work(video, output)` for each video asked for, until there are no more.

    When the process that asks is gone, this one ends, whatever it is doing.

    Args:
      describe: called first, with a few of the videos to come; returns what decides the results
        beside the script and its arguments, such as a hash of a checkpoint. What it raises says
        that the command is wrong.
    Raises:
      ValueError: not started by run_parallel.
    """
    if ANSWERS not in os.environ:
        raise ValueError("--serve is how scripts/run_parallel.py starts a script")
    pipe = int(os.environ.pop(ANSWERS))
    os.set_inheritable(pipe, False)
    asked, back = iter(_Asked()), os.fdopen(pipe, "w")
    examples = json.loads(next(asked))["examples"]
    _send(back, {"ready": describe(examples) if describe else ""})
    for line in asked:
        job = json.loads(line)
        _redirect(job["log"])
        answer = _attempt(work, job["video"], job["output"])
        sys.stdout.flush()
        _send(back, answer)
        if answer["code"] in STOPPED:
            return answer["code"]
    return 0


def _attempt(work: Callable, video: str, output: str) -> Answer:
    try:
        return work(video, output) or Answer()
    except KeyboardInterrupt:
        return Answer(130, cause="interrupted")
    except Exception as error:
        traceback.print_exc()
        kind = INPUT if type(error) is ValueError else kind_of(error)
        return Answer(3, kind, one_line(error))


def _redirect(log: str) -> None:
    """Sends what is printed, by libraries too, to the end of a log."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _send(back, message: dict) -> None:
    back.write(json.dumps(message) + "\n")
    back.flush()


class _Asked:
    """The lines of stdin, read on a thread that ends the process if they end while it works."""

    def __init__(self):
        self._lines, self._busy = queue.SimpleQueue(), False
        threading.Thread(target=self._read, daemon=True).start()

    def __iter__(self):
        while line := self._lines.get():
            self._busy = True
            yield line
            self._busy = False

    def _read(self):
        for line in sys.stdin:
            self._lines.put(line)
        self._lines.put("")
        if self._busy:  # nobody is left to take the answer
            os.kill(os.getpid(), signal.SIGTERM)
