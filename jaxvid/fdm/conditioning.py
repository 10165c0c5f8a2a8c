"""All of the network that depends only on diffusion time and frame indices.

A sampler evaluates this once per call and timestep, for all videos that share them, and hands the
result to the UNet; training evaluates it with the UNet.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxvid.fdm.layers import RelativePositions, linear
from jaxvid.fdm.unet import UNetConfig, encoding_block, layout


def sinusoid(positions, width: int, max_period: float = 10000.0):
    """Cosines, then sines, of the positions at geometrically spaced frequencies.

    positions: any shape, may be fractional; returns positions.shape + (width,) in float32, with a
    zero last column when width is odd.
    """
    half = width // 2
    frequencies = np.exp(-np.log(max_period) * np.arange(half, dtype=np.float32) / half)
    angles = positions[..., None].astype(jnp.float32) * frequencies.astype(np.float32)
    embedding = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
    return jnp.pad(embedding, [(0, 0)] * positions.ndim + [(0, width % 2)])


def bucket(distances, alpha: int, beta: int, gamma: int):
    """Signed bucket of each frame distance (Wu et al., arXiv:2107.14222, equation 18).

    Distances up to alpha keep a bucket each; farther ones share logarithmic buckets up to beta.
    """
    size = jnp.abs(distances).astype(jnp.float32)
    span = np.log(gamma / alpha) if gamma > alpha else 1.0  # unused where no distance passes alpha
    far = alpha + jnp.log(jnp.maximum(size, alpha) / alpha) / span * (beta - alpha)
    far = jnp.minimum(beta, far).astype(jnp.int32) * jnp.sign(distances).astype(jnp.int32)
    return jnp.where(size > alpha, far, distances.astype(jnp.int32))


class PositionNetwork(nn.Module):
    """Relative positions as a small network of the distance and the diffusion time."""

    channels: int
    heads: int

    @nn.compact
    def __call__(self, time, distances):
        """time: (b, t or 1, e); distances: (b, t, u); returns (b, t, u, k, d)."""
        d = distances.astype(jnp.float32)
        features = [jnp.log1p(jnp.maximum(d, 0)), jnp.log1p(jnp.maximum(-d, 0)), d == 0]
        features = jnp.stack([f.astype(jnp.float32) for f in features], -1)
        hidden = linear(time, self.channels, "embed_diffusion_time")[:, :, None]
        hidden = hidden + linear(features, self.channels, "embed_distances")
        out = linear(nn.silu(hidden), self.channels, "out", zero=True)
        return rearrange(out, "b t u (k d) -> b t u k d", k=self.heads)


class PositionTable(nn.Module):
    """Relative positions looked up by distance bucket; negative buckets count from the end."""

    channels: int
    heads: int
    buckets: tuple[int, int, int]

    @nn.compact
    def __call__(self, time, distances):
        """distances: (b, t, u); returns (b, t, u, k, d)."""
        rows = 2 * self.buckets[1] + 1
        shape = (rows, self.heads, self.channels // self.heads)
        table = self.param("lookup_table_weight", nn.initializers.zeros, shape)
        return table[bucket(distances, *self.buckets) % rows]


class Conditioner(nn.Module):
    """Time modulation of every residual block, position terms of every temporal attention."""

    config: UNetConfig

    @nn.compact
    def __call__(self, timesteps, indices, observed=None):
        """Conditioning for calls at the given times and frames.

        Args:
          timesteps: (b,) as the network expects them, already rescaled.
          indices: (b, t) frame positions; b is 1 where all videos of a call share time and frames.
          observed: (b, t) mask, needed for indicator="timestep" only.
        Returns:
          dict: block name to (b, 1 or t, c) time terms or to RelativePositions.
        """
        config = self.config
        timesteps = timesteps[:, None]
        if config.indicator == "timestep":
            timesteps = jnp.where(observed > 0, -1, timesteps)
        width = 4 * config.channels
        time = sinusoid(timesteps, config.channels)
        time = linear(time, width, "time_embed_0")
        time = linear(nn.silu(time), width, "time_embed_2")
        self.sow("intermediates", "time_embed", time)
        distances = indices[:, :, None] - indices[:, None, :]
        terms = {}
        for block in (block for part in layout(config) for stage in part for block in stage):
            if block.kind == "res":
                features = block.channels * (2 if config.scale_shift_norm else 1)
                terms[block.name] = linear(nn.silu(time), features, f"{block.name}_emb")
            elif block.kind == "attention":
                terms[block.name] = self.positions(block, time, distances)
        if config.frame_encoding:
            terms["frame_encoding"] = self.frame_encoding(indices)
        return terms

    def positions(self, block, time, distances) -> RelativePositions:
        """The three position terms of one attention block."""

        def term(name):
            if self.config.positions == "table":
                table = PositionTable(block.channels, block.heads, self.config.buckets, name=name)
                return table(time, distances)
            return PositionNetwork(block.channels, block.heads, name=name)(time, distances)

        return RelativePositions(*(term(f"{block.name}_rpe_{part}") for part in "qkv"))

    def frame_encoding(self, indices):
        """(b, t, c) sinusoids of the frame positions, period ten training videos."""
        if self.config.centre_frames:
            indices = indices.astype(jnp.float32)
            indices = indices - indices.mean(1, keepdims=True)
        _, channels, _ = encoding_block(self.config)
        return sinusoid(indices, channels, 10 * self.config.train_frames)
