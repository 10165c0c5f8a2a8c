"""Noise levels of Cosmos, and what the network is told of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxvid.core import flow

LARGEST = 0.999  # of u, before the shift
KARRAS = (200.0, 0.01, 7.0)  # largest and smallest sigma / (1 - sigma), and the exponent


class Levels(NamedTuple):
    """timesteps: (s,) int64 in [0, 1000]; sigmas: (s + 1,) float32, falling to 0."""

    timesteps: np.ndarray
    sigmas: np.ndarray


def shifted(steps: int, shift: float = 5.0) -> Levels:
    """The schedule of the release: sigma = shift u / (1 + (shift - 1) u), u falling evenly.

    Timesteps are truncated to integers, sigmas are not (`fm_solvers_unipc.py`).

    With about 300 steps and more the first two timesteps are equal, and upstream leaves the first
    step out by mistake; here it is made.

    Raises:
      ValueError: fewer than 1 step.
    """
    _check(steps)
    u = np.linspace(float(np.float32(LARGEST)), 0.0, steps + 1)[:-1]
    return _levels(shift * u / (1 + (shift - 1) * u))


def karras(steps: int) -> Levels:
    """The levels of EDM (arXiv:2206.00364) mapped onto the flow; `steps` + 1 of them."""
    _check(steps)
    largest, smallest, power = KARRAS
    ends = largest ** (1 / power), smallest ** (1 / power)
    ratio = np.linspace(*ends, steps + 1) ** power
    return _levels(ratio / (1 + ratio))


def listed(step_list: Sequence[int], shift: float = 5.0) -> Levels:
    """A few levels for a distilled network, e.g. (1000, 750, 500, 250); see flow.few_steps."""
    return _levels(flow.few_steps(step_list, shift).sigmas)


def _check(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"{steps} steps: use at least 1")


def _levels(sigmas: np.ndarray) -> Levels:
    timesteps = (sigmas * flow.STEPS).astype(np.int64)
    return Levels(timesteps, np.append(sigmas, 0).astype(np.float32))
