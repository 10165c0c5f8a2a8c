"""What a training run says on the way: means on screen, in a CSV file and for TensorBoard."""

import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import numpy as np
from tensorboardX import SummaryWriter

from jaxvid.core.distributed import whole
from jaxvid.runs.step_table import StepTable
from jaxvid.runs.training_settings import Loop

WATCHED = ("loss", "grad_norm")  # endings of the names that are printed and must stay finite


class DivergedError(ValueError):
    """The loss is no longer finite."""


def plain_means(pending: Iterable[Mapping]) -> dict[str, float]:
    """Mean of every metric over the updates that have it; all processes call it."""
    values = {}
    for metrics in jax.tree.map(whole, list(pending)):
        for name, numbers in metrics.items():
            values.setdefault(name, []).append(numbers.mean())
    return {name: float(np.mean(numbers)) for name, numbers in values.items()}


def watched(means: Mapping[str, float]) -> dict[str, float]:
    """The losses and the gradients' norms."""
    return {name: value for name, value in means.items() if name.endswith(WATCHED)}


def check_finite(means: Mapping[str, float], step: int, saved: int | None, advice: str) -> None:
    """Raises DivergedError if a loss or a gradient is not finite.

    Args:
      saved: the latest checkpoint's update.
      advice: what may help, such as "Lower train.lr=0.1".
    """
    found = watched(means)
    if not all(map(math.isfinite, found.values())):
        shown = " ".join(f"{name}={value}" for name, value in found.items())
        raise DivergedError(
            f"{shown} near update {step}; nothing was saved since update {saved}. "
            f"{advice}, or check the data"
        )


class Log:
    """CSV, TensorBoard, and one line on the screen."""

    def __init__(self, folder: Path, loop: Loop, start: int):
        """start: the update from which the run goes on; rows of later ones are dropped."""
        self.loop = loop
        self.table = StepTable(folder / "log.csv", start)
        self.board = SummaryWriter(str(folder / "tensorboard"))
        self.since = (start, time.perf_counter())

    def write(self, step: int, means: dict) -> None:
        """A row of means since the last one, for the file, TensorBoard and the screen."""
        before, then = self.since
        self.since = (step, time.perf_counter())
        seconds = (self.since[1] - then) / max(step - before, 1)
        row = {"step": step, "samples": step * self.loop.batch_size, "seconds_per_step": seconds}
        self.table.append(row | means)
        for name, value in (row | means).items():
            self.board.add_scalar(name, value, step)
        shown = (
            f"{name.replace('_', ' ').replace('grad norm', 'grad')} {value:.4f}"
            for name, value in watched(means).items()
        )
        print(
            f"update {step}/{self.loop.steps}", *shown, f"{seconds:.2f} s/update",
            sep="  ", flush=True,
        )  # fmt: skip

    def close(self):
        self.board.close()
