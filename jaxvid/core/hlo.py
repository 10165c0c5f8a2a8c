"""What an optimised XLA program runs: kernels and collectives, those in loops every time."""

import math
import re
from collections.abc import Iterator

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
KERNELS = {
    "cuDNN attention": r'custom_call_target="__cudnn\$fmha',
    "TPU attention": r'custom_call_target="tpu_custom_call"',
    "cuDNN convolution": r'custom_call_target="__cudnn\$conv',
}
WIDTH = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
HEAD = re.compile(r"(ENTRY )?%?([\w.-]+) \(.*\) -> .*\{$")
CALLED = re.compile(
    r"(?:body|condition|to_apply|calls|\w+_computations?)=(?:(%?[\w.-]+)|\{([^}]*)\})"
)
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
BELOW = re.compile(r"compare\(%?[\w.-]+, %?([\w.-]+)\), direction=LT")


def collectives(text: str) -> dict:
    """Of each kind: how many a device runs, and megabytes of what it is left with."""
    found = {}
    for line, times in executed(text):
        for name in COLLECTIVES:
            if match := re.search(rf"= (.*?) {name}(-start)?\(", line):
                size = _bytes(_results(name, *match.groups()))
                entry = found.setdefault(name, {"count": 0, "megabytes": 0.0})
                entry["count"] += times
                entry["megabytes"] += size * times / 1e6
    for entry in found.values():
        entry["megabytes"] = round(entry["megabytes"], 3)
    return dict(sorted(found.items()))


def kernels(text: str) -> dict:
    """How often each of KERNELS is run."""
    lines = list(executed(text))
    return {
        name: sum(times for line, times in lines if re.search(call, line))
        for name, call in KERNELS.items()
    }


def executed(text: str) -> Iterator[tuple[str, int]]:
    """Every instruction that is reached, with how often; loops of unknown length count once."""
    bodies, entry, name = {}, "", ""
    for line in text.splitlines():
        if match := HEAD.match(line):
            name = match[2]
            entry = name if match[1] else entry
            bodies[name] = []
        elif name and " = " in line:
            bodies[name].append(line.strip())
    yield from _reached(bodies, entry, 1)


def _reached(bodies: dict, name: str, times: int) -> Iterator[tuple[str, int]]:
    for line in bodies.get(name, ()):
        yield line, times
        inner = times * _trips(bodies, line) if " while(" in line else times
        for one, several in CALLED.findall(line):
            for called in re.findall(r"[\w.-]+", one or several):
                yield from _reached(bodies, called, inner)


def _trips(bodies: dict, line: str) -> int:
    """How often a loop runs: as noted (GPUs), or what its counter from 0 stays below (TPUs)."""
    if known := TRIPS.search(line):
        return int(known[1])
    condition = "\n".join(bodies[re.search(r"condition=%?([\w.-]+)", line)[1]])
    if limit := BELOW.search(condition):
        constant = re.search(rf"%?{re.escape(limit[1])} = s32\[\]\S* constant\((\d+)\)", condition)
        return int(constant[1]) if constant else 1
    return 1


def _results(name: str, shapes: str, start: str | None) -> list[str]:
    """Of an asynchronous collective's tuple only what comes out."""
    arrays = re.findall(r"\w+\[[\d,]*\]", shapes)
    if start and name == "all-gather":
        return arrays[len(arrays) // 2 :]
    if start and name == "collective-permute":
        arrays = [a for a in arrays if not a.endswith("[]")]
        return arrays[len(arrays) // 2 :]
    return arrays


def _bytes(arrays: list[str]) -> int:
    size = 0
    for kind, lengths in (array[:-1].split("[") for array in arrays):
        size += WIDTH.get(kind, 4) * math.prod(int(n) for n in lengths.split(",") if n)
    return size
