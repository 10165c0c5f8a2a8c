"""What a run is going to do, worked out without loading parameters."""

import dataclasses
import os
from collections.abc import Mapping, Sequence

import jax

from jaxvid.runs.survey import Survey

UNITS = ("", "k", "M", "G", "T", "P", "E")


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames of one request: asked for, rounded to what the network takes, written out."""

    id: str
    asked: int
    rounded: int
    produced: int
    note: str = ""  # why they differ, and anything else that is dropped or clamped


@dataclasses.dataclass(frozen=True)
class Plan:
    """The cost of a list of requests; a mode's `plan(config, requests)` returns it.

    frames: one entry for each request; flops: of all of them together; memory_bytes: needed
    on each device; available_bytes: there on each, None if the platform does not say;
    compilations: of the large functions; memory_parts: what the memory is needed for;
    notes: lines about what no request was made of.
    """

    frames: tuple[Frames, ...]
    flops: float
    memory_bytes: int
    available_bytes: int | None
    compilations: int
    tokens: int | None = None  # of all requests, for transformers
    memory_parts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What `--plan` prints; requests with the same numbers share a line."""
        cost = [f"{si(self.flops)}FLOP"]
        if self.tokens is not None:
            cost.append(f"{si(self.tokens)} tokens")
        cost.append(f"{self.compilations} compilation" + "s" * (self.compilations != 1))
        return [*self.notes, *self._frame_lines(), ", ".join(cost), self._memory_line()]

    def _frame_lines(self) -> list[str]:
        groups = {}
        for f in self.frames:
            groups.setdefault((f.asked, f.rounded, f.produced, f.note), []).append(f.id)
        return [
            f"{_name(ids)}: {asked} frames asked, {rounded} rounded, {produced} produced"
            + (f" ({note})" if note else "")
            for (asked, rounded, produced, note), ids in groups.items()
        ]

    def _memory_line(self) -> str:
        need = f"memory per device: {size(self.memory_bytes)} needed"
        if self.memory_parts:
            need += f" ({', '.join(f'{what} {size(n)}' for what, n in self.memory_parts.items())})"
        if self.available_bytes is None:
            return f"{need}, available: unknown"
        fits = "" if self.memory_bytes <= self.available_bytes else ": DOES NOT FIT"
        return f"{need}, {size(self.available_bytes)} available{fits}"


def device_bytes() -> int | None:
    """Memory of each device of this process; the devices of a CPU share the host's."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return host // jax.local_device_count()
    return (device.memory_stats() or {}).get("bytes_limit")


def print_plan(plan: Plan | None, found: Survey):
    """plan: of what is yet to make, None if that is nothing; found: of the requests."""
    for line in (*(plan.lines() if plan else ()), *found.lines()):
        print(line)


def si(number: float) -> str:
    """1234567 -> '1.23 M'."""
    for unit in UNITS[:-1]:
        if abs(number) < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} {UNITS[-1]}"


def size(number: int) -> str:
    """Bytes as GiB or MiB."""
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def _name(ids: Sequence[str]) -> str:
    return ids[0] if len(ids) == 1 else f"{len(ids)} requests ({ids[0]} ... {ids[-1]})"
