"""Solvers of rectified flow as tables of numbers: UniPC of order 2, Euler, and renoising.

All see the network only through the clean sample m = x - sigma velocity that it points to, and all
are linear in what they have seen. So one step is the same few products for each, and what differs
are the coefficients, which depend on the noise levels alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core import flow


class Rows(NamedTuple):
    """Coefficients of each step; float32. `jax.tree.map(lambda a: a[i], rows)` is one step."""

    sigma: np.ndarray  # (s,) noise level of the input
    correct: np.ndarray  # (s, 5) of x, the start of the last step, m now and 1, 2 steps before
    predict: np.ndarray  # (s, 3) of the corrected sample, of m and of the m before
    fresh: np.ndarray  # (s,) of new noise


class State(NamedTuple):
    """What a solver knows between steps; each like the sample."""

    x: jax.Array  # the sample at the next noise level
    start: jax.Array  # where the step that led to x started
    clean: tuple[jax.Array, jax.Array]  # m one and two steps before


def unipc(sigmas: Sequence[float]) -> Rows:
    """UniPC (arXiv:2302.04867) of order 2, B(h) = expm1(h), predicting clean samples.

    Orders at the ends are 1. Upstream: `fm_solvers_unipc.py` of Cosmos-Transfer2.5.

    Args:
      sigmas: (s + 1,) falling noise levels in [0, 1), the last one is 0.
    """
    sigmas = check_levels(sigmas, below=1.0)
    steps = len(sigmas) - 1
    with np.errstate(divide="ignore"):
        logs = np.log1p(-sigmas) - np.log(sigmas)  # of alpha / sigma; infinite at the end
    orders = [min(2, steps - i, i + 1) for i in range(steps)]
    correct = _uncorrected(steps)
    for i in range(1, steps):
        correct[i] = 0, *_corrector(sigmas, logs, i, orders[i - 1])
    predict = [_predictor(sigmas, logs, i, order) for i, order in enumerate(orders)]
    return _rows(sigmas, correct, predict)


def euler(sigmas: Sequence[float]) -> Rows:
    """Euler's method along the flow; see `unipc` for sigmas, of which the first may be 1."""
    sigmas = check_levels(sigmas)
    ratio = sigmas[1:] / sigmas[:-1]
    return _rows(sigmas, _uncorrected(len(ratio)), np.stack([ratio, 1 - ratio, 0 * ratio], axis=1))


def renoise(sigmas: Sequence[float]) -> Rows:
    """Takes m and adds new noise to it, as networks distilled to few steps are sampled.

    sigmas: as of `euler`.
    """
    sigmas = check_levels(sigmas)
    next_ = sigmas[1:]
    predict = np.stack([0 * next_, 1 - next_, 0 * next_], axis=1)
    return _rows(sigmas, _uncorrected(len(next_)), predict, next_)


SOLVERS = {"unipc": unipc, "euler": euler, "renoise": renoise}


def begin(noise) -> State:
    """The state before the first step."""
    return State(noise, noise, (jnp.zeros_like(noise), jnp.zeros_like(noise)))


def step(state: State, velocity, row: Rows, fresh=None) -> State:
    """One step.

    Args:
      velocity: of the network at state.x, which the corrector changes afterwards.
      row: of the step.
      fresh: new noise like the sample, for `renoise`.
    """
    clean = flow.clean_of(state.x, velocity, row.sigma)
    before, earlier = state.clean
    seen = (state.x, state.start, clean, before, earlier)
    x = sum(row.correct[..., i] * part for i, part in enumerate(seen))
    following = sum(row.predict[..., i] * part for i, part in enumerate((x, clean, before)))
    if fresh is not None:
        following += row.fresh * fresh
    return State(following, x, (clean, before))


def check_levels(sigmas: Sequence[float], below: float = np.inf) -> np.ndarray:
    """The levels as float64; raises ValueError unless they fall from at most 1 to 0."""
    levels = np.asarray(sigmas, np.float64)
    falling = levels.ndim == 1 and len(levels) > 1 and (np.diff(levels) < 0).all()
    if not falling or levels[-1] != 0 or levels[0] > 1 or levels[0] >= below:
        limit = "less than 1" if below == 1 else "at most 1"
        raise ValueError(f"noise levels have to fall from {limit} to 0, these are {levels}")
    return levels


def _uncorrected(steps: int) -> np.ndarray:
    return np.tile([1.0, 0.0, 0.0, 0.0, 0.0], (steps, 1))


def _corrector(sigmas, logs, i: int, order: int) -> np.ndarray:
    """The step from i - 1 to i once more, now that m at i is known."""
    step = logs[i] - logs[i - 1]
    decay = np.expm1(-step)
    scale = (1 - sigmas[i]) * decay
    found = np.array([sigmas[i] / sigmas[i - 1], 0, -scale, 0])
    if order == 1:
        return found - scale * np.array([0, 0.5, -0.5, 0])
    ratio = (logs[i - 2] - logs[i - 1]) / step
    phi_2 = decay / -step - 1
    phi_3 = phi_2 / -step - 0.5
    system, right = [[1, 1], [ratio, 1]], [phi_2 / decay, 2 * phi_3 / decay]
    old, new = np.linalg.solve(system, right)
    return found - scale * np.array([0, new, -new - old / ratio, old / ratio])


def _predictor(sigmas, logs, i: int, order: int) -> np.ndarray:
    """The step from i to i + 1."""
    step = logs[i + 1] - logs[i]
    scale = (1 - sigmas[i + 1]) * np.expm1(-step)
    found = np.array([sigmas[i + 1] / sigmas[i], -scale, 0])
    if order == 1:
        return found
    slope = 0.5 * step / (logs[i - 1] - logs[i])
    return found - scale * np.array([0, -slope, slope])


def _rows(sigmas, correct, predict, fresh=None) -> Rows:
    fresh = np.zeros(len(predict)) if fresh is None else fresh
    return Rows(*(np.asarray(a, np.float32) for a in (sigmas[:-1], correct, predict, fresh)))
