"""Which frames are best to observe: FDM's greedy search over training videos, and its files.

Reproduces `scripts/video_optimal_schedule.py`. A schedule maps the number of a step of a scheme
to the sorted frames to observe in it; the latent frames remain those of the scheme.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxvid.core import torch_file
from jaxvid.core.files import atomic_path

KINDS = ("linspace-t", "linspace-t-force-nearby")

Schedule = dict[int, list[int]]
ErrorFunction = Callable[[int, list[int], list[int], np.ndarray, np.ndarray], np.ndarray]


def nearest_done(latent: list[int], done) -> set[int]:
    """The nearest done frame before the latent ones and the nearest after them."""
    before = [i for i in done if i < min(latent)]
    after = [i for i in done if i > max(latent)]
    return {max(before, default=None), min(after, default=None)} - {None}


def timestep_grid(num_timesteps: int, count: int) -> np.ndarray:
    """(count,) timesteps from the noisiest down, equally spaced."""
    spread = np.linspace(0, num_timesteps, count, endpoint=False, dtype=int)
    return num_timesteps - 1 - spread


def video_subset(step: int, observed: int, videos: int, size: int) -> np.ndarray:
    """(size,) indices of the videos used to choose the frame after `observed` others.

    The legacy generator keeps upstream's choice.
    """
    if size > videos:
        raise ValueError(
            f"subset_size={size} exceeds the {videos} training videos; use at most {videos}"
        )
    return np.random.RandomState(1000 * step + observed).choice(videos, size, replace=False)


def mean_error(errors: np.ndarray, timesteps: np.ndarray) -> float:
    """The mean over timesteps of the mean over the videos seen at that timestep."""
    return float(np.mean([errors[timesteps == t].mean() for t in np.unique(timesteps)]))


def choose_frames(
    step: int, latent: list[int], done: set[int], max_frames: int, error: ErrorFunction,
    *, kind: str = "linspace-t", videos: int, num_timesteps: int, grid: int = 10,
    subset_size: int | None = None, chosen=(), save: Callable[[list[int]], None] = lambda _: None,
) -> list[int]:  # fmt: skip
    """Greedy search for the frames to observe in one step; returns them sorted.

    Args:
      step, latent, done: the step's number, its latent frames, the frames that exist before it.
      error: called as error(step, observed, latent, videos (n,), timesteps (n,)); returns the
        latent frames' noise MSE of each training video at its timestep, (n,), any common scale.
      kind: one of KINDS; "force-nearby" starts with the nearest frames on both sides.
      videos, num_timesteps: training videos, and timesteps of the (respaced) diffusion.
      grid, subset_size: timesteps used, and videos (a multiple of grid; default 10 * grid).
      chosen, save: frames of an interrupted search, and what is called with them on every change.
    """
    size = _check(kind, grid, subset_size)
    chosen = list(chosen)
    if "force-nearby" in kind:
        chosen += sorted(nearest_done(latent, done) - set(chosen))
    candidates = set(done) - set(latent)
    times = np.resize(timestep_grid(num_timesteps, grid), size)
    while len(chosen) < min(len(candidates), max_frames - len(latent)):
        subset = video_subset(step, len(chosen), videos, size)
        scores = {
            frame: mean_error(
                np.asarray(error(step, [*chosen, frame], latent, subset, times)), times
            )
            for frame in sorted(candidates - set(chosen))
        }
        chosen.append(min(scores, key=scores.get))
        save(chosen)
    return sorted(chosen)


def optimal_observations(
    steps, given, max_frames: int, error: ErrorFunction, path, *, only=None, **settings
) -> Schedule:
    """Searches all steps of a scheme and keeps every choice on disk as soon as it is made.

    Args:
      steps: the scheme's table, from `schemes.validate`.
      given: the frames observed from the start, `observed_frames` of the scheme.
      path: the schedule, .json; unfinished steps lie beside it, one file each, so that several
        processes can do different steps, and a killed search goes on where it was.
      only: numbers of the steps to do (e.g. the SLURM array task's); all of them if None.
      settings: of `choose_frames`.
    Returns what is finished of the schedule; `path` is written when all of it is.
    """
    _check(settings.get("kind", KINDS[0]), settings.get("grid", 10), settings.get("subset_size"))
    path, done = Path(path), set(given)
    for number, step in enumerate(steps):
        file = _partial_path(path, number)
        kept = json.loads(file.read_text()) if file.exists() else {"observed": [], "done": False}
        if not kept["done"] and (only is None or number in only):
            chosen = choose_frames(
                number, step.latent, done, max_frames, error, chosen=kept["observed"],
                save=lambda frames, file=file: _write(file, {"observed": frames, "done": False}),
                **settings,
            )  # fmt: skip
            _write(file, {"observed": chosen, "done": True})
        done |= set(step.latent)
    return _collect(path, len(steps))


def unfinished_steps(path, count: int) -> list[int]:
    """Which of `count` steps of the schedule at `path` are still to be searched."""
    finished = _finished(Path(path), count)
    return [n for n in range(count) if n not in finished]


def _finished(path: Path, count: int) -> Schedule:
    parts = {n: _partial_path(path, n) for n in range(count)}
    parts = {n: json.loads(file.read_text()) for n, file in parts.items() if file.exists()}
    return {n: part["observed"] for n, part in parts.items() if part["done"]}


def _collect(path: Path, count: int) -> Schedule:
    schedule = _finished(path, count)
    if len(schedule) == count:
        save_schedule(path, schedule)
    return schedule


def _partial_path(path: Path, step: int) -> Path:
    return path.with_name(f".{path.stem}_partial") / f"step_{step:04d}.json"


def _write(path: Path, content: dict) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content))


def save_schedule(path, schedule: Schedule) -> None:
    """Writes a .json file, or upstream's .pt."""
    if Path(path).suffix == ".pt":
        torch_file.save_pt(path, schedule)
        return
    _write(Path(path), {"schedule": {str(step): frames for step, frames in schedule.items()}})


def load_schedule(path) -> Schedule:
    """Reads upstream's `optimal_schedule.pt` or our .json; ValueError if it is neither."""
    path = Path(path)
    if not path.exists():
        raise ValueError(
            f"there is no optimal schedule {path}; make it with scripts/optimal_schedule.py"
        )
    try:
        content = torch_file.load(path) if path.suffix == ".pt" else json.loads(path.read_text())
        content = content if path.suffix == ".pt" else content["schedule"]
        return {int(step): [int(i) for i in frames] for step, frames in content.items()}
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not an optimal schedule, {{step: frames}}") from error


def _check(kind: str, grid: int, subset_size: int | None) -> int:
    if kind not in KINDS:
        raise ValueError(
            f"unknown kind of optimal schedule {kind!r}; use one of {', '.join(KINDS)}"
        )
    size = 10 * grid if subset_size is None else subset_size
    if size % grid:
        raise ValueError(f"subset_size={size} is not a multiple of the {grid} timesteps")
    return size
