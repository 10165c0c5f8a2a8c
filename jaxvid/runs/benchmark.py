"""Timing by stage: warm-up, medians, pairs measured in turn, a table and a JSON file."""

import contextlib
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxvid.core.files import atomic_path

PACKAGES = ("jaxvid", "jax", "jaxlib", "flax", "optax", "numpy", "torch")
COMPILING = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is timed.

    Attributes:
      name: short, for the table.
      once: seconds of what happens once, measured while the subject was made.
      stages: name to a function that does the work once and returns when it is finished.
      facts: JSON values worth keeping, such as sizes.
      derive: makes named figures of what `measure` has found.
    """

    name: str
    once: dict[str, float]
    stages: dict[str, Callable[[], object]]
    facts: dict = dataclasses.field(default_factory=dict)
    derive: Callable[[dict], dict] = lambda _: {}


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call; the work must wait for its own results."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def summary(times: list[float]) -> dict:
    """Median, extremes and all values, in seconds (or whatever the values are)."""
    return {
        "median": statistics.median(times),
        "min": min(times),
        "max": max(times),
        "all": [round(t, 6) for t in times],
    }


def measure(subject: Subject, repeats: int, warmup: int = 1) -> dict:
    """Stage name to the summary of its times."""
    found = {}
    for name, work in subject.stages.items():
        for _ in range(warmup):
            work()
        found[name] = summary([seconds(work) for _ in range(repeats)])
    return found


def pair(a: Subject, b: Subject, repeats: int, warmup: int = 1) -> dict:
    """Times the stages that both have in turn, A B A B.

    Returns:
      dict: stage to {"a", "b": summaries, "ratio": summary of seconds of b / seconds of a}, the
      ratios taken within each pair, so that a slow moment of the machine falls on both.
    """
    found = {}
    for name in (name for name in a.stages if name in b.stages):
        works = a.stages[name], b.stages[name]
        for _ in range(warmup):
            works[0](), works[1]()
        pairs = [tuple(map(seconds, works)) for _ in range(repeats)]
        ratios = summary([second / first for first, second in pairs])
        found[name] = {"a": summary([p[0] for p in pairs]), "b": summary([p[1] for p in pairs])}
        found[name]["ratio"] = ratios
    return found


@contextlib.contextmanager
def fresh_cache() -> Iterator[None]:
    """An empty persistent compilation cache that takes every program, for the time of the block."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        for name, value in zip(names, (folder, 0.0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        jax.clear_caches()
        try:
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


class CompileClock:
    """Adds up the seconds that XLA compiles, or reads a compiled program from the cache."""

    def __init__(self):
        self.seconds = 0.0
        jax.monitoring.register_event_duration_secs_listener(self._add)

    def _add(self, event: str, duration: float, **_):
        if event == COMPILING:
            self.seconds += duration

    def of(self, work: Callable[[], object]) -> dict[str, float]:
        """Seconds of the work, and of compiling in it."""
        before = self.seconds
        total = seconds(work)
        return {"total": total, "compiling": self.seconds - before}


def first_runs(work: Callable[[], object], clock: CompileClock) -> dict[str, float]:
    """Seconds of the first run with nothing compiled, then from JAX's persistent cache.

    The second stands for a new process: everything in memory is dropped before it.
    """
    with fresh_cache():
        cold = clock.of(work)
        jax.clear_caches()
        warm = clock.of(work)
    return {
        "first run, cold": cold["total"],
        "  compiling in it": cold["compiling"],
        "first run, from cache": warm["total"],
        "  reading programs in it": warm["compiling"],
    }


def start_seconds(module: str, repeats: int = 3) -> float:
    """Median time in which a new process starts and imports a module."""
    command = [sys.executable, "-c", f"import {module}"]
    return statistics.median(
        seconds(lambda: subprocess.run(command, check=True)) for _ in range(repeats)
    )


def environment() -> dict:
    """Machine and versions."""
    device = jax.devices()[0]
    return {
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "platform": device.platform,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def load() -> list[float]:
    """Processes that wanted to run, over the last 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def rows(found: Mapping, once: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Cells of the table of one subject: stage, median, min, max, repeats."""
    single = [(name, clock(value), "", "", "1") for name, value in once.items()]
    return single + [
        (name, *(clock(t[key]) for key in ("median", "min", "max")), str(len(t["all"])))
        for name, t in found.items()
    ]


def pair_rows(found: Mapping) -> list[tuple[str, ...]]:
    """Cells of the table of a pair: stage, median of each, ratio with its range, pairs."""
    return [
        (
            name,
            *(clock(t[key]["median"]) for key in "ab"),
            f"{t['ratio']['median']:.2f} ({t['ratio']['min']:.2f} to {t['ratio']['max']:.2f})",
            str(len(t["ratio"]["all"])),
        )
        for name, t in found.items()
    ]


def table(head: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    """Columns of text, the first one left, the others right."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    shown = []
    for line in (head, *lines):
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown)


def clock(value: float) -> str:
    """Seconds with three digits that count."""
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.2f} ms" if value < 0.1 else f"{value * 1e3:.0f} ms"


def write_json(path: str | os.PathLike, report: Mapping) -> Path:
    """The report as a file that is whole or not there."""
    path = Path(path).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1, default=str) + "\n")
    return path
