"""The noise that a video starts from: by our rule, or as upstream lays it out on its ranks."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxvid.core.noise import normal, request_key

SEEDS = 2**32  # of numpy.random.RandomState


def of_request(
    seed: int,
    request_id: str,
    views: Sequence[int],
    chunk: int,
    shape: Sequence[int],
    draw: int = 0,
) -> jax.Array:
    """(1, v, t, h, w, c) noise of one chunk: that of a view does not depend on the others.

    Args:
      views: ids.
      shape: (t, h, w, c) of a view.
      draw: 0 for the noise at the start, a step's number for what is added after it.
    """
    key = request_key(seed, request_id)
    for number in (chunk, draw):
        key = jax.random.fold_in(key, number)
    keys = [jax.random.fold_in(key, view) for view in views]
    return jnp.stack([normal(k, shape) for k in keys])[None]


def of_upstream(seed: int, ranks: int, views: int, shape: Sequence[int]) -> np.ndarray:
    """(1, v, t, h, w, c) noise of upstream's run on so many ranks (`--context-parallel-size`).

    One draw of NumPy serves all views. It is cut along its frames into a piece for each rank, and
    each rank takes its piece for its share of every view; so frames end up elsewhere than drawn.

    Args:
      seed: of the chunk.
      shape: (t, h, w, c) of a view.
    Raises:
      ValueError: see check_ranks.
    """
    t, h, w, c = shape
    check_ranks(ranks, t, h)
    drawn = np.random.RandomState(seed).standard_normal((1, c, views * t, h, w))
    parts = drawn.astype(np.float32).reshape(1, c, ranks, views, t * h * w // ranks)
    placed = parts.swapaxes(2, 3).reshape(1, c, views, t, h, w)
    return rearrange(placed, "b c v t h w -> b v t h w c")


def check_ranks(ranks: int, frames: int, height: int) -> None:
    """Raises ValueError unless upstream can cut a view of latents into so many pieces.

    It cuts whole latent frames, then pairs of rows.
    """
    if ranks < 1:
        raise ValueError(f"upstream_ranks={ranks} must be at least 1; 0 turns upstream's noise off")
    rows = ranks // math.gcd(frames, ranks)
    if (height // 2) % rows:
        fits = [n for n in range(1, 65) if (height // 2) % (n // math.gcd(frames, n)) == 0]
        raise ValueError(
            f"upstream_ranks={ranks} cannot share {frames} latent frames of {height // 2} rows of "
            f"tokens: use one of {', '.join(map(str, fits[:8]))}"
        )


def check_seeds(seed: int, chunks: int) -> None:
    """Raises ValueError unless NumPy takes the seeds of all chunks, which count up from `seed`."""
    if not 0 <= seed <= SEEDS - chunks:
        raise ValueError(
            f"seed={seed}: upstream's noise of {chunks} chunks takes seeds from 0 to "
            f"{SEEDS - chunks}; sampling.upstream_ranks=0 takes any"
        )
