"""The search for an optimal schedule with a trained network and training videos.

Reproduces `scripts/video_optimal_schedule.py`; which videos and timesteps judge a choice, and how
frames are chosen, is in optimal.py.
"""

import dataclasses
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core.mesh import make_mesh, over_data, replicated
from jaxvid.core.noise import request_key
from jaxvid.data.sources import open_source
from jaxvid.fdm import diffusion, marking, optimal, schemes
from jaxvid.fdm.cost import batch_size
from jaxvid.fdm.model import load_model, network
from jaxvid.fdm.process import make_process
from jaxvid.fdm.sample_config import Settings
from jaxvid.fdm.sampler import call_noise, make_window
from jaxvid.fdm.scheme import Step
from jaxvid.fdm.unet import Frames

CACHE_BYTES = 2 * 2**30  # memory for training videos, which are read for every candidate


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """What to search; the rest is the config of the sampling that will use the schedule."""

    kind: str = optimal.KINDS[0]
    num_timesteps: int = 10  # on which a choice is judged
    subset_size: int = 0  # training videos that judge a choice; 0: ten for each timestep
    step: int = -1  # only this call of the scheme, -1: all

    def __post_init__(self):
        if self.kind not in optimal.KINDS:
            raise ValueError(f"optimality={self.kind!r} is not one of {', '.join(optimal.KINDS)}")
        if self.num_timesteps < 1 or self.subset_size < 0:
            raise ValueError("num_timesteps must be at least 1 and subset_size not negative")
        if self.subset_size % self.num_timesteps:
            raise ValueError(
                f"subset_size={self.subset_size} is not a multiple of "
                f"num_timesteps={self.num_timesteps}"
            )

    @property
    def videos(self) -> int:
        return self.subset_size or 10 * self.num_timesteps


class Evaluator:
    """Errors of the network, as `optimal.ErrorFunction`; all calls share one compilation.

    Noise depends on the seed, the video and the call only, so all candidates for a frame are
    compared under the same noise.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.mesh = make_mesh(settings.mesh)
        self.batch_size = batch_size(settings, self.mesh.shape["data"])
        self.source = open_source(settings.data, "train")
        self.source.check_all()
        self.process = make_process(settings.diffusion)
        video = settings.T * 3 * settings.network.image_size**2
        kept = max(self.batch_size, CACHE_BYTES // video)
        self._read = functools.lru_cache(maxsize=kept)(self.source.__getitem__)
        self._errors = jax.jit(self._evaluate)

    @functools.cached_property
    def params(self) -> dict:
        return load_model(self.settings.checkpoint, replicated(self.mesh)).params

    def __call__(self, step: int, observed, latent, videos, timesteps) -> np.ndarray:
        """(n,) noise MSE of the latent frames of each training video at its timestep.

        A sum over frames of the mean over pixels, times the number of timesteps, as upstream
        prints it. observed, latent: frames; videos, timesteps: (n,).
        """
        frames = make_window(Step(list(observed), list(latent)), self.settings.max_frames, 1)
        found = []
        for start in range(0, len(videos), self.batch_size):
            rows = np.arange(start, start + self.batch_size).clip(max=len(videos) - 1)
            found.append(self._batch(step, frames, videos[rows], timesteps[rows]))
        return np.concatenate(found)[: len(videos)]

    def _batch(self, step: int, frames: Frames, videos, timesteps) -> np.ndarray:
        clean = np.stack([self._read(int(i))[frames.indices[0]] for i in videos])
        seed = self.settings.sampling.seed
        keys = jnp.stack([request_key(seed, f"optimal_{i}") for i in videos])
        rows = (marking.normalise(clean), keys, np.asarray(timesteps, np.int32))
        rows = jax.device_put(rows, over_data(self.mesh))
        with jax.set_mesh(self.mesh):
            return np.asarray(self._errors(self.params, *rows, step, frames))

    def _evaluate(self, params, clean, keys, timesteps, step, frames: Frames):
        batch, size = clean.shape[:2]
        frames = jax.tree.map(lambda a: jnp.broadcast_to(a, (batch, size)), frames)
        times = jnp.asarray(self.process.network_timesteps)

        def denoise(x, at):
            return network(self.settings.network, params, x, clean, times[at], frames)

        noise = call_noise(keys, step, clean.shape[1:])
        found = diffusion.bits_per_dimension(
            *(self.process, denoise, clean, frames.latent, noise, timesteps[None]),
            self.settings.sampling.clip,
        )
        # The mean divides by the padded length; times that length it is a sum over frames.
        return found["mse"][:, 0] * size * self.process.steps


def schedule_path(settings: Settings, search: SearchConfig) -> Path:
    """Where sampling with `optimality` looks for the schedule."""
    return settings.folder_for(search.kind) / "optimal_schedule.json"


def unfinished_steps(settings: Settings, search: SearchConfig) -> list[int]:
    """The calls whose frames are not yet chosen."""
    path = schedule_path(settings, search)
    return [] if path.exists() else optimal.unfinished_steps(path, len(settings.steps()))


def evaluations(settings: Settings, search: SearchConfig, steps: list[int]) -> int:
    """Evaluations of the network for one video that the search of these calls takes at most."""
    done, total = set(settings.given_frames()), 0
    for number, step in enumerate(settings.steps()):
        candidates = len(done - set(step.latent))
        room = min(candidates, settings.max_frames - len(step.latent))
        total += (number in steps) * sum(candidates - i for i in range(room)) * search.videos
        done |= set(step.latent)
    return total


def find_schedule(settings: Settings, search: SearchConfig) -> Path:
    """Searches what is unfinished, or one call of it; returns the path of the schedule.

    The file exists once all calls are finished. Killed searches go on where they were, and
    several processes can search different calls.

    Args:
      settings: of the sampling, with sampling.optimality empty.
    Raises:
      ValueError: an adaptive scheme, no such call, or too few training videos.
    """
    path, steps = schedule_path(settings, search), settings.steps()
    if schemes.is_adaptive(settings.sampling.scheme):
        raise ValueError(f"the scheme {settings.sampling.scheme!r} chooses its own frames")
    if search.step >= len(steps):
        raise ValueError(f"step={search.step}: the scheme has calls 0 to {len(steps) - 1}")
    count = len(open_source(settings.data, "train"))
    optimal.video_subset(0, 0, count, search.videos)
    todo = unfinished_steps(settings, search)
    todo = [n for n in todo if search.step in (-1, n)]
    if path.exists():
        return path
    cost = evaluations(settings, search, todo)
    print(f"{len(todo)} calls to search, at most {cost} evaluations of the network", flush=True)
    optimal.optimal_observations(
        *(steps, settings.given_frames(), settings.max_frames),
        _reported(Evaluator(settings), len(steps)),
        path,
        only=todo,
        kind=search.kind,
        videos=count,
        num_timesteps=make_process(settings.diffusion).steps,
        grid=search.num_timesteps,
        subset_size=search.videos,
    )
    return path


def _reported(error: optimal.ErrorFunction, calls: int) -> optimal.ErrorFunction:
    """The same, with a line for each candidate."""

    def report(step, observed, latent, videos, timesteps):
        found = error(step, observed, latent, videos, timesteps)
        mean = optimal.mean_error(found, timesteps)
        *chosen, candidate = observed
        if not math.isfinite(mean):
            raise ValueError(f"the network's error with frames {observed} observed is {mean}")
        print(f"call {step + 1}/{calls}: {chosen} + {candidate}: {mean:.5g}", flush=True)
        return found

    return report
