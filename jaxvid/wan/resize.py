"""Frames at the size that a network wants, as upstream's loaders make them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def resize(frames, height: int, width: int, antialias: bool = True):
    """Bilinear; the aspect ratio is not kept (torchvision's `Resize`, which antialiases).

    frames: (..., h, w, c) of any type; returns (..., height, width, c) float32.
    """
    shape = (*frames.shape[:-3], height, width, frames.shape[-1])
    return jax.image.resize(
        frames.astype(jnp.float32),
        shape,
        "linear",
        antialias=antialias,
        precision=jax.lax.Precision.HIGHEST,
    )


def resize_uint8(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """`resize` of uint8 frames (..., h, w, c), rounded half to even, to uint8."""
    if frames.dtype != np.uint8:
        raise ValueError(f"the frames are {frames.dtype}, not uint8: use resize")
    levels = jnp.clip(jnp.rint(resize(frames, height, width)), 0, 255)
    return np.asarray(levels.astype(jnp.uint8))
