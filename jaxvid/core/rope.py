"""Rotary position embedding over frames, rows and columns (Wan2.1), and its two pairings.

The channels of a head are taken in pairs, each one complex number: neighbours in Wan, channel j
with j + d/2 in Qwen and Cosmos. In Wan's table the pairs are shared out to the three axes, and
every axis has its own range of frequencies.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from einops import rearrange

THETA = 10000.0
MAX_FRAMES = 1024  # rows of Wan's table: frame positions it was trained to know


class Rope(NamedTuple):
    """Cosine and sine of the angle of every token and pair; float32, as bfloat16 is too coarse."""

    cos: np.ndarray  # (n, d/2)
    sin: np.ndarray  # (n, d/2)


def axis_pairs(head_width: int) -> tuple[int, int, int]:
    """How many of the d/2 pairs turn with the frame, the row and the column."""
    pairs = head_width // 2
    return pairs - 2 * (pairs // 3), pairs // 3, pairs // 3


def angles(positions: int, pairs: int) -> np.ndarray:
    """(positions, pairs) float64 radians of one axis: position times theta^(-j/pairs)."""
    frequencies = THETA ** (-np.arange(pairs, dtype=np.float64) / pairs)
    return np.arange(positions, dtype=np.float64)[:, None] * frequencies


def grid_rope(head_width: int, frames, height: int, width: int) -> Rope:
    """Rotations of the tokens of some frames, in the order frame, row, column.

    Args:
      head_width: channels of a head, d.
      frames: (t,) positions of the frames, below MAX_FRAMES (not checked if traced).
      height, width: tokens per column and row of a frame; both count from 0.
    Returns:
      Rope of t * height * width tokens.
    """
    pairs = axis_pairs(head_width)
    table = angles(MAX_FRAMES, pairs[0])

    def grid(function):
        time = jnp.asarray(function(table), jnp.float32)[frames]
        row, column = (
            jnp.asarray(function(angles(size, count)), jnp.float32)
            for size, count in zip((height, width), pairs[1:], strict=True)
        )
        return _spread(time, row, column)

    return Rope(grid(np.cos), grid(np.sin))


def _spread(*axes):
    """(t, p), (h, q) and (w, r) numbers of the axes to (t * h * w, p + q + r) of the tokens."""
    shape = tuple(len(axis) for axis in axes)
    parts = (axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None])
    whole = [jnp.broadcast_to(part, (*shape, part.shape[-1])) for part in parts]
    return rearrange(jnp.concatenate(whole, axis=-1), "t h w p -> (t h w) p")


def stretched_angles(positions, pairs: int, ratio: float) -> np.ndarray:
    """(positions, pairs) float64 radians of one axis whose slowest turns are `ratio` times slower.

    Cosmos' extrapolation: theta times ratio^(d/(d-2)) for an axis of d = 2 * pairs channels, at
    least 4 (`minimal_v4_dit.py`, VideoRopePosition3DEmb).
    """
    theta = THETA * ratio ** (pairs / (pairs - 1))
    return np.asarray(positions, np.float64)[:, None] * theta ** (-np.arange(pairs) / pairs)


def stretched_axes(head_width: int, positions: Sequence, ratios: Sequence[float]) -> list:
    """`stretched_angles` of the three axes; positions: (t,), (h,) and (w,); ratios likewise."""
    axes = zip(positions, axis_pairs(head_width), ratios, strict=True)
    return [stretched_angles(*axis) for axis in axes]


def stretched_rope(head_width: int, grid: tuple[int, int, int], ratios: Sequence[float]) -> Rope:
    """Rotations of a grid of (t, h, w) tokens, every axis counted from 0."""
    axes = stretched_axes(head_width, [np.arange(size) for size in grid], ratios)
    whole = lambda f: _spread(*(jnp.asarray(f(axis), jnp.float32) for axis in axes))  # noqa: E731
    return Rope(whole(np.cos), whole(np.sin))


def rotate(x, rope: Rope):
    """Turns every pair of channels (2j, 2j + 1) of x (b, n, k, d) by its token's angle.

    Computed in float32 and given back in the type of x.
    """
    pairs = rearrange(x.astype(jnp.float32), "b n k (p two) -> b n k p two", two=2)
    real, imaginary = pairs[..., 0], pairs[..., 1]
    cos, sin = rope.cos[:, None], rope.sin[:, None]
    turned = (real * cos - imaginary * sin, real * sin + imaginary * cos)
    return rearrange(jnp.stack(turned, axis=-1), "b n k p two -> b n k (p two)").astype(x.dtype)


def rotate_halves(x, rope: Rope):
    """Turns every pair of channels (j, j + d/2) of x (..., n, k, d) by its token's angle.

    Computed in float32 and given back in the type of x.
    """
    real, imaginary = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = rope.cos[:, None], rope.sin[:, None]
    turned = (real * cos - imaginary * sin, imaginary * cos + real * sin)
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)
