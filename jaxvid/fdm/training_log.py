"""What a training run says on the way: means on screen, CSV and TensorBoard, sample videos."""

import csv
import math
import time
from pathlib import Path

import jax
import numpy as np
from tensorboardX import SummaryWriter

from jaxvid.core import checkpoint, video
from jaxvid.core.distributed import whole
from jaxvid.core.files import atomic_path
from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.fdm import train
from jaxvid.fdm.preview import preview_video
from jaxvid.fdm.training_settings import Setup


class DivergedError(ValueError):
    """The loss is no longer finite."""


def means_of(setup: Setup, step: int, pending, timestep_count: int) -> dict[str, float]:
    """Means of the pending metrics, by quartile of time as well; raises on NaN."""
    if not pending:
        return {}
    values = {}
    for times, metrics in jax.tree.map(whole, pending):
        quartile = 4 * times.ravel() // timestep_count
        for name, numbers in metrics.items():
            values.setdefault(name, []).append(numbers.mean())
            for q in np.unique(quartile) if numbers.ndim else ():
                values.setdefault(f"{name}_q{q}", []).append(numbers[quartile == q].mean())
    means = {name: float(np.mean(numbers)) for name, numbers in values.items()}
    if not (math.isfinite(means["loss"]) and math.isfinite(means["grad_norm"])):
        latest = checkpoint.latest_step(setup.folder / "checkpoints")
        raise DivergedError(
            f"loss={means['loss']} grad_norm={means['grad_norm']} near update {step}; nothing was "
            f"saved since update {latest}. Lower train.lr={setup.train.lr}, or check the data"
        )
    return means


class Log:
    """CSV, TensorBoard, one line on the screen, and sample videos."""

    def __init__(self, setup: Setup, start: int):
        self.folder = setup.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "log.csv"
        self.rows = _rows_until(self.path, start)
        self.board = SummaryWriter(str(self.folder / "tensorboard"))
        self.batch_size = setup.train.batch_size
        self.steps = setup.train.steps
        self.since = (start, time.perf_counter())

    def write(self, step: int, means: dict) -> None:
        before, then = self.since
        self.since = (step, time.perf_counter())
        seconds = (self.since[1] - then) / max(step - before, 1)
        row = {"step": step, "samples": step * self.batch_size, "seconds_per_step": seconds}
        self.rows.append(row | means)
        for name, value in (row | means).items():
            self.board.add_scalar(name, value, step)
        _write_csv(self.path, self.rows)
        print(
            f"update {step}/{self.steps}  loss {means['loss']:.4f}  grad {means['grad_norm']:.3f}"
            f"  {seconds:.2f} s/update",
            flush=True,
        )

    def sample(self, setup: Setup, state: train.State, step: int) -> None:
        """Completes two test clips with the first EMA and writes them as a GIF."""
        params = jax.tree.map(np.asarray, next(iter(state.ema.values())))
        alone = make_mesh(MeshConfig(), jax.local_devices()[:1])  # the other processes go on
        with jax.set_mesh(alone):
            clip = preview_video(setup, params)
        path = self.folder / "samples" / f"step_{step:08d}.gif"
        with video.VideoWriter(path, fps=4) as writer:
            writer.write(clip)

    def close(self):
        self.board.close()


def _rows_until(path: Path, step: int) -> list[dict]:
    """Rows logged up to an update; later ones belong to work that a resumed run repeats."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) <= step]


def _write_csv(path: Path, rows: list[dict]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)
