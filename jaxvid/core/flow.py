"""Rectified flow: noise levels, timesteps, and the way between clean, noise and velocity.

A noised sample is x = (1 - sigma) clean + sigma noise; networks predict the velocity
noise - clean. Timesteps are 1000 sigma. Upstream (Wan2.1, Self-Forcing) knows noise levels only
through a table, so a timestep stands for the nearest entry: timestep 0 is not noise-free there.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

STEPS = 1000


class Steps(NamedTuple):
    """The levels of a few-step sampler, in the order they are visited; float32."""

    timesteps: np.ndarray  # (s,) what the network is told
    sigmas: np.ndarray  # (s,) noise level of the input


def noise_levels(shift: float, steps: int = STEPS) -> np.ndarray:
    """(steps,) float32 sigmas falling from 1, their end 0 left out; shift > 1 favours noise."""
    sigmas = np.linspace(1.0, 0.0, steps + 1)[:-1].astype(np.float32)
    return np.float32(shift) * sigmas / (1 + np.float32(shift - 1) * sigmas)


def timesteps_of(sigmas: np.ndarray) -> np.ndarray:
    """Timesteps of a table of sigmas."""
    return sigmas * np.float32(STEPS)


def nearest(timestep, shift: float, steps: int = STEPS):
    """Index of the table entry closest to each timestep, the noisier one if two are."""
    table = timesteps_of(noise_levels(shift, steps))
    return jnp.argmin(jnp.abs(jnp.asarray(timestep)[..., None] - table), axis=-1)


def sigma_at(timestep, shift: float):
    """Noise level that upstream's table gives for timesteps of any shape."""
    return jnp.asarray(noise_levels(shift))[nearest(timestep, shift)]


def few_steps(step_list: Sequence[float], shift: float, warp: bool = True) -> Steps:
    """The levels of a configured step list (`denoising_step_list`).

    Args:
      step_list: numbers in [0, 1000]; with `warp` (upstream's `warp_denoising_step`) they count
        table entries from the clean end, without it they are timesteps.
      shift: shift of the table.
    Raises:
      ValueError: an empty list, or numbers out of range or not falling.
    """
    values = [float(value) for value in step_list]
    if not values or any(not 0 <= value <= STEPS for value in values):
        raise ValueError(f"steps {list(step_list)}: use one or more numbers from 0 to {STEPS}")
    if any(after >= before for before, after in itertools.pairwise(values)):
        raise ValueError(f"steps {list(step_list)} have to fall, e.g. 1000, 750, 500, 250")
    sigmas = noise_levels(shift)
    timesteps = np.asarray(values, np.float32)
    if warp:
        if any(value != int(value) for value in values):
            raise ValueError(f"steps {list(step_list)} have to be integers to be warped")
        table = np.append(timesteps_of(sigmas), np.float32(0))
        timesteps = table[STEPS - timesteps.astype(int)]
    distances = np.abs(timesteps_of(sigmas) - timesteps[:, None])
    return Steps(timesteps, sigmas[distances.argmin(1)])


def add_noise(clean, noise, sigma):
    """The sample at noise level sigma (broadcastable)."""
    return (1 - sigma) * clean + sigma * noise


def clean_of(x, velocity, sigma):
    """The clean sample that a velocity at x points to."""
    return x - sigma * velocity


def velocity_of(x, clean, sigma):
    """The inverse of `clean_of`, for sigma > 0."""
    return (x - clean) / sigma


def euler_step(x, velocity, sigma, next_sigma):
    """One step of the probability flow, from sigma to next_sigma."""
    return x + (next_sigma - sigma) * velocity


def loss_weights(shift: float) -> np.ndarray:
    """(1000,) float32 weights of the flow-matching loss: a bell over the timesteps, mean 1."""
    timesteps = timesteps_of(noise_levels(shift))
    bell = np.exp(-2 * ((timesteps - STEPS / 2) / STEPS) ** 2)
    bell = bell - bell.min()
    return bell * (STEPS / bell.sum())
