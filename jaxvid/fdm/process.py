"""Noise schedules, respacing, and the constants of the resulting diffusion process.

All constants are float64 NumPy arrays of length N, the number of kept timesteps (Ho et al.,
arXiv:2006.11239; Nichol & Dhariwal, arXiv:2102.09672).
"""

import dataclasses
import functools
import math
from typing import Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class DiffusionConfig:
    """The diffusion process; the defaults are those of all published FDM models."""

    steps: int = 1000  # of training
    schedule: Literal["linear", "cosine", "noisier_linear"] = "linear"
    respacing: str = ""  # "", "250", "10,5" (per section) or "ddim25"
    predict: Literal["noise", "clean"] = "noise"
    variance: Literal["fixed_large", "fixed_small", "learned_range"] = "fixed_large"
    loss: Literal["mse", "kl"] = "mse"
    rescale_timesteps: bool = True  # the network sees 0..1000 whatever `steps` is

    def __post_init__(self):
        if self.steps < 2:
            raise ValueError(f"steps={self.steps}: the process needs at least 2 timesteps")
        if self.schedule != "cosine" and self.steps < 21:
            raise ValueError(
                f"steps={self.steps}: the {self.schedule} schedule reaches beta >= 1 below 21 "
                "steps; use more, or schedule='cosine'"
            )
        if len(kept_timesteps(self.steps, self.respacing)) < 2:
            raise ValueError(f"respacing={self.respacing!r} keeps one timestep; keep at least 2")


def beta_schedule(schedule: str, steps: int) -> np.ndarray:
    """(steps,) float64 noise variances of the named schedule."""
    if schedule == "cosine":

        def alpha_bar(u):
            return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

        ratios = [alpha_bar((i + 1) / steps) / alpha_bar(i / steps) for i in range(steps)]
        return np.array([min(1 - ratio, 0.999) for ratio in ratios])
    end = {"linear": 0.02, "noisier_linear": 0.025}[schedule]
    return np.linspace(1e-4 * 1000 / steps, end * 1000 / steps, steps)


def kept_timesteps(steps: int, respacing: str) -> np.ndarray:
    """Sorted timesteps that a respacing string keeps of `steps`.

    Raises:
      ValueError: the string asks for more steps than there are, or "ddimN" has no integer stride.
    """
    if not respacing:
        return np.arange(steps)
    if respacing.startswith("ddim"):
        count = _count(respacing.removeprefix("ddim"), respacing)
        for stride in range(1, steps):
            if len(range(0, steps, stride)) == count:
                return np.arange(0, steps, stride)
        raise ValueError(
            f"respacing={respacing!r}: no integer stride keeps {count} of {steps} steps"
        )
    counts = [_count(text, respacing) for text in respacing.split(",")]
    kept, start = set(), 0
    for i, count in enumerate(counts):
        size = steps // len(counts) + (i < steps % len(counts))
        if size < count:
            raise ValueError(f"respacing={respacing!r} keeps {count} of a section of {size} steps")
        stride = 1.0 if count <= 1 else (size - 1) / (count - 1)
        position = 0.0
        for _ in range(count):  # repeated addition rounds as upstream's table does
            kept.add(start + round(position))
            position += stride
        start += size
    return np.array(sorted(kept), dtype=np.int64)


def _count(text: str, respacing: str) -> int:
    if not text.strip().isdigit():
        raise ValueError(f"respacing={respacing!r}: use '', '250', '10,5' or 'ddim25'")
    return int(text)


@dataclasses.dataclass(frozen=True, eq=False)
class Process:
    """Constants of a (respaced) process; index t runs over the kept timesteps."""

    betas: np.ndarray
    timestep_map: np.ndarray  # kept timestep of each t
    network_timesteps: np.ndarray  # what the network is given for each t
    config: DiffusionConfig

    @property
    def steps(self) -> int:
        return len(self.betas)

    @functools.cached_property
    def alphas_cumprod(self):
        return np.cumprod(1 - self.betas)

    @functools.cached_property
    def alphas_cumprod_prev(self):
        return np.append(1.0, self.alphas_cumprod[:-1])

    @functools.cached_property
    def alphas_cumprod_next(self):
        return np.append(self.alphas_cumprod[1:], 0.0)

    @functools.cached_property
    def sqrt_alphas_cumprod(self):
        return np.sqrt(self.alphas_cumprod)

    @functools.cached_property
    def sqrt_one_minus_alphas_cumprod(self):
        return np.sqrt(1 - self.alphas_cumprod)

    @functools.cached_property
    def log_one_minus_alphas_cumprod(self):
        return np.log(1 - self.alphas_cumprod)

    @functools.cached_property
    def sqrt_recip_alphas_cumprod(self):
        return np.sqrt(1 / self.alphas_cumprod)

    @functools.cached_property
    def sqrt_recipm1_alphas_cumprod(self):
        return np.sqrt(1 / self.alphas_cumprod - 1)

    @functools.cached_property
    def posterior_variance(self):
        return self.betas * (1 - self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @functools.cached_property
    def posterior_log_variance_clipped(self):
        """The variance is 0 at t = 0, so the log repeats that of t = 1 there."""
        return np.log(np.append(self.posterior_variance[1], self.posterior_variance[1:]))

    @functools.cached_property
    def posterior_mean_coef1(self):
        return self.betas * np.sqrt(self.alphas_cumprod_prev) / (1 - self.alphas_cumprod)

    @functools.cached_property
    def posterior_mean_coef2(self):
        kept = 1 - self.alphas_cumprod_prev
        return kept * np.sqrt(1 - self.betas) / (1 - self.alphas_cumprod)

    @functools.cached_property
    def fixed_large_variance(self):
        """The forward variances, except at t = 0, where the posterior variance of t = 1 stands."""
        return np.append(self.posterior_variance[1], self.betas[1:])

    @functools.cached_property
    def fixed_large_log_variance(self):
        return np.log(self.fixed_large_variance)


@functools.lru_cache
def make_process(config: DiffusionConfig) -> Process:
    """The process of a config, respaced as it says."""
    alphas_cumprod = np.cumprod(1 - beta_schedule(config.schedule, config.steps))
    kept = kept_timesteps(config.steps, config.respacing)
    if len(kept) == config.steps:
        betas = beta_schedule(config.schedule, config.steps)
    else:
        previous = np.append(1.0, alphas_cumprod[kept[:-1]])
        betas = 1 - alphas_cumprod[kept] / previous
    times = kept
    if config.rescale_timesteps:
        times = kept.astype(np.float32) * np.float32(1000.0 / config.steps)
    return Process(betas, kept, times, config)
