"""What goes into the Wan transformer and comes out: patches, timesteps, modulation."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from einops import rearrange

COARSE = 2.0**-13  # the coarse part of a frequency is a multiple of this


def sinusoid(timesteps, width: int):
    """(..., width) float32: cosines, then sines, of the timesteps at width/2 frequencies.

    A float32 product of a timestep up to 1000 and a frequency is off by 3e-5 radians, where
    upstream computes in float64. So the phase is counted in turns and whole turns are dropped
    from a product that is exact: the timestep's integer part times the frequency's leading bits.
    """
    half = width // 2
    turns = 10000.0 ** (-np.arange(half) / half) / (2 * np.pi)
    leading = np.floor(turns / COARSE) * COARSE
    rest = (turns - leading).astype(np.float32)
    timesteps = jnp.asarray(timesteps, jnp.float32)[..., None]
    whole = jnp.floor(timesteps)
    exact = whole * leading.astype(np.float32)
    phase = exact - jnp.floor(exact) + whole * rest
    phase = 2 * np.pi * (phase + (timesteps - whole) * turns.astype(np.float32))
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)


def layer_norm(x, epsilon: float):
    """Layer norm of the last axis without parameters; float32, whatever x is."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + epsilon)


class PatchEmbedding(nn.Module):
    """One token per patch of latent frames, rows and columns; a convolution without overlap."""

    width: int
    patch: tuple[int, int, int]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        """(b, t, h, w, c) to (b, n, width), tokens in the order frame, row, column."""
        shape = (*self.patch, x.shape[-1], self.width)
        fan_in = nn.initializers.lecun_normal(in_axis=(0, 1, 2, 3), out_axis=-1)
        kernel = self.param("kernel", fan_in, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.width,)).astype(self.dtype)
        p, q, r = self.patch
        patches = rearrange(
            x.astype(self.dtype), "b (t p) (h q) (w r) c -> b (t h w) (p q r c)", p=p, q=q, r=r
        )
        return patches @ rearrange(kernel, "p q r c d -> (p q r c) d") + bias


def unpatchify(patches, grid: tuple[int, int, int], patch: tuple[int, int, int]):
    """(b, n, p * q * r * c) back to (b, t, h, w, c); grid: patches per axis."""
    (t, h, w), (p, q, r) = grid, patch
    return rearrange(
        patches, "b (t h w) (p q r c) -> b (t p) (h q) (w r) c", t=t, h=h, w=w, p=p, q=q, r=r
    )


class TimeEmbedding(nn.Module):
    """Timestep to the head's features and the six modulations of every block.

    In float32: it is a few rows only, and shift and scale act on every token.
    """

    width: int
    frequencies: int

    @nn.compact
    def __call__(self, timesteps):
        """(b, t) to (b, t, width) and (b, t, 6, width)."""
        dense = lambda features, name: nn.Dense(features, name=name, dtype=jnp.float32)  # noqa: E731
        x = nn.silu(dense(self.width, "in")(sinusoid(timesteps, self.frequencies)))
        x = dense(self.width, "out")(x)
        modulation = dense(6 * self.width, "projection")(nn.silu(x))
        return x, rearrange(modulation, "b t (six c) -> b t six c", six=6)
