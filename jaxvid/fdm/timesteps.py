"""Which timesteps to train on: uniform, or by the size of their recent losses (iDDPM,
arXiv:2102.09672, section 3.3; FDM's `resample.py`)."""

from typing import NamedTuple

import numpy as np


class LossHistory(NamedTuple):
    """The newest losses of each timestep; a pytree of arrays that a checkpoint can hold."""

    losses: np.ndarray  # (n, h) float64, oldest first
    counts: np.ndarray  # (n,) int64, entries filled


def empty_history(num_timesteps: int, length: int = 10) -> LossHistory:
    return LossHistory(np.zeros((num_timesteps, length)), np.zeros(num_timesteps, np.int64))


def add_losses(history: LossHistory, timesteps, losses) -> LossHistory:
    """The history after these (timestep, loss) pairs, of all processes and in their order."""
    values, counts = history.losses.copy(), history.counts.copy()
    length = values.shape[1]
    for t, loss in zip(np.asarray(timesteps), np.asarray(losses, np.float64), strict=True):
        if counts[t] == length:
            values[t, :-1] = values[t, 1:]
        counts[t] = min(counts[t] + 1, length)
        values[t, counts[t] - 1] = loss
    return LossHistory(values, counts)


def is_warm(history: LossHistory) -> bool:
    """Whether every timestep has a full history."""
    return bool(np.all(history.counts == history.losses.shape[1]))


def loss_weights(history: LossHistory, uniform: float = 0.001) -> np.ndarray:
    """(n,) weights: root mean square loss, mixed with a uniform share; all 1 until warm."""
    n = len(history.counts)
    if not is_warm(history):
        return np.ones(n)
    weights = np.sqrt(np.mean(np.square(history.losses), axis=-1))
    return (1 - uniform) * weights / weights.sum() + uniform / n


def probabilities(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum()


def importance(weights: np.ndarray) -> np.ndarray:
    """(n,) factors 1 / (n p) that keep the expected loss what it is under uniform sampling."""
    return 1 / (len(weights) * probabilities(weights))


def sample_timesteps(rng: np.random.Generator, weights: np.ndarray, count: int):
    """Timesteps (count,) int64 and their importance (count,) float32."""
    timesteps = rng.choice(len(weights), size=count, p=probabilities(weights))
    return timesteps, importance(weights)[timesteps].astype(np.float32)
