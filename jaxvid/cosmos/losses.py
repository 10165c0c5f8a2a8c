"""Losses of Cosmos post-training: rectified flow on frames that are not given."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp

from jaxvid.cosmos.dit import CONTROL

TIMESTEPS = 1000.0


def split(params: Mapping) -> tuple[dict, dict]:
    """The control branch, which is trained, and the rest, which is frozen; their union is all."""
    trained = {name: params[name] for name in params if name in CONTROL}
    return trained, {name: params[name] for name in params if name not in CONTROL}


def sigma_of(u, shift: float = 5.0):
    """Noise levels of uniform numbers or logistic-normal ones u in (0, 1), shifted to noise."""
    return shift * u / (1 + (shift - 1) * u)


def noised(clean, noise, sigma):
    """(1 - sigma) * clean + sigma * noise; sigma (b,), the rest (b, v, t, h, w, c)."""
    sigma = sigma[:, None, None, None, None, None]
    return (1 - sigma) * clean + sigma * noise


def flow_matching(predict: Callable, clean, noise, sigma, given):
    """Mean squared error of the velocity; given frames count, with no error.

    Args:
      predict: maps latents (b, v, t, h, w, c), given frames clean, and timesteps (b,) in [0, 1000]
        to the velocity.
      clean, noise: (b, v, t, h, w, c).
      sigma: (b,) noise levels, the same for all frames and views.
      given: (b, v, t) 1 where a frame is given, else 0.
    Returns:
      () loss, and the velocity (b, v, t, h, w, c) with that of given frames in its place.
    """
    keep = given[..., None, None, None].astype(clean.dtype)
    target = noise - clean
    latents = keep * clean + (1 - keep) * noised(clean, noise, sigma)
    found = keep * target + (1 - keep) * predict(latents, TIMESTEPS * sigma)
    return jnp.square(found - target).mean(), found
