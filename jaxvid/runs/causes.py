"""Why a request failed, in a few words that a reader and a script can tell apart."""

import signal
from pathlib import Path

from jaxvid.core.files import InputError

MEMORY = "out of memory"  # of the device or of the host, as far as the process lived to say so
INPUT = "bad input"  # a file or a setting of this one request; trying again does not help
KILLED = "killed"  # the process died of a signal
TIMEOUT = "timed out"
ERROR = "error"
KINDS = (MEMORY, INPUT, KILLED, TIMEOUT, ERROR)

MEMORY_WORDS = ("resource_exhausted", "out of memory", "outofmemory", "memoryerror", "bad_alloc")
TAIL = 8192  # bytes of a log that are looked at


def kind_of(error: BaseException) -> str:
    """The kind of an exception."""
    if isinstance(error, MemoryError) or _tells_of_memory(f"{type(error).__name__} {error}"):
        return MEMORY
    if isinstance(error, WorkerKilledError):
        return KILLED
    return INPUT if isinstance(error, InputError) else ERROR


class WorkerKilledError(Exception):
    """The process that made a request died without a word; told by the next one."""


def explain_exit(code: int, log: Path) -> tuple[str, str]:
    """Kind and cause of a process that ended with a code other than 0 (negative: a signal)."""
    tail = log_tail(log)
    last = last_line(tail)
    if code < 0:
        known = -code in iter(signal.Signals)
        name = signal.Signals(-code).name if known else f"signal {-code}"
        hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
        return KILLED, f"the process was killed by {name}{hint}" + (f": {last}" if last else "")
    kind = MEMORY if _tells_of_memory(tail) else ERROR
    return kind, f"exit code {code}" + (f": {last}" if last else "")


def log_tail(log: Path) -> str:
    """The end of a log; "" if there is none."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_line(text: str, longest: int = 200) -> str:
    """The last line that says something."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return next((line[:longest] for line in reversed(lines) if line), "")


def _tells_of_memory(text: str) -> bool:
    return any(word in text.lower() for word in MEMORY_WORDS)
