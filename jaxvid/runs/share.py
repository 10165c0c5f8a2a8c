"""Which part of the requests this process works on."""

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Share:
    """Every `count`-th request, from number `index` on."""

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise ValueError(f"shard={self.index}/{self.count}: use 0/n to n-1/n")

    def __str__(self):
        return f"{self.index}/{self.count}"

    def select(self, requests: Sequence) -> list:
        return list(requests[self.index :: self.count])

    def covers(self, other: "Share") -> bool:
        """Whether every request of `other` is also in this share."""
        return other.count % self.count == 0 and other.index % self.count == self.index

    def overlaps(self, other: "Share") -> bool:
        """Whether some request may be in both."""
        return (self.index - other.index) % math.gcd(self.count, other.count) == 0


def this_share(
    shard: str = "",
    process: tuple[int, int] = (0, 1),
    environ: Mapping[str, str] = os.environ,
) -> Share:
    """The share of this process.

    Args:
      shard: "i/n" with i from 0; "" means the task of the SLURM array, or else everything.
      process: (index, count) of the processes that divide this share once more.
      environ: where the variables of SLURM are looked up.
    """
    index, count = _parse(shard) if shard else _array_task(environ)
    return Share(index + count * process[0], count * process[1])


def _parse(shard: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", shard.strip())
    if not match:
        raise ValueError(f"shard={shard!r} is not of the form i/n, e.g. 0/4")
    share = Share(*map(int, match.groups()))
    return share.index, share.count


def _array_task(environ: Mapping[str, str]) -> tuple[int, int]:
    if not environ.get("SLURM_ARRAY_TASK_ID"):
        return 0, 1
    names = ("ID", "MIN", "MAX", "STEP", "COUNT")
    task, low, high, step, count = (
        int(environ.get(f"SLURM_ARRAY_TASK_{name}") or default)
        for name, default in zip(names, (0, 0, 0, 1, 1), strict=True)
    )
    if high - low != step * (count - 1):
        raise ValueError(
            f"the SLURM array has {count} tasks between {low} and {high}, not a plain range, "
            "so their shares are unknown: pass --shard=i/n"
        )
    return (task - low) // step, count
