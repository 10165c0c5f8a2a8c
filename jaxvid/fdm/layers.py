"""Layers of FDM's UNet: over frames (b, t, h, w, c) or, with positions, over time."""

import functools
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from jaxvid.core import noise
from jaxvid.core.attention import attention
from jaxvid.core.convolution import convolve, convolve_doubled

GROUPS = 32


class GroupNorm(nn.Module):
    """GroupNorm(32, eps 1e-5) in float32 over each frame's pixels, or over the frames.

    `over="time"` pools a pixel's channels over all real frames of the call.
    """

    over: Literal["space", "time"] = "space"

    @nn.compact
    def __call__(self, x, real=None):
        """x: (b, t, h, w, c); real: (b, t) or None; returns the same shape and dtype."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        pool = mean_over_space if self.over == "space" else functools.partial(mean_over_time, real)
        y = x.astype(jnp.float32)
        y = y - pool(y)
        y = y * (jax.lax.rsqrt(pool(jnp.square(y)) + 1e-5) * scale) + bias
        return y.astype(x.dtype)


def mean_over_space(y):
    """Mean over the pixels and channels of each group, for each channel: (b, t, 1, 1, c).

    Pixels before channels: on CPUs three times as fast as all at once.
    """
    channels = rearrange(jnp.mean(y, (2, 3)), "b t (g c) -> b t g c", g=GROUPS)
    return repeat(channels.mean(-1), "b t g -> b t 1 1 (g c)", c=channels.shape[-1])


def mean_over_time(real, y):
    """Mean over the real frames and the channels of each group: (b, 1, h, w, c)."""
    y = rearrange(y, "b t h w (g c) -> b t h w g c", g=GROUPS)
    weight = None if real is None else rearrange(real, "b t -> b t 1 1 1 1") > 0
    mean = jnp.mean(y, (1, 5), where=weight)
    return repeat(mean, "b h w g -> b 1 h w (g c)", c=y.shape[-1])


class Conv3x3(nn.Module):
    """A 3x3 convolution with one pixel of padding; initial weights as PyTorch's."""

    features: int
    dtype: str = "float32"
    stride: int = 1
    zero: bool = False  # initial weights
    double: bool = False  # of images enlarged twice first

    @nn.compact
    def __call__(self, x):
        """x: (b, t, h, w, c); returns (b, t, h', w', features)."""
        kernel_init, bias_init = initial(9 * x.shape[-1], self.zero)
        kernel = self.param("kernel", kernel_init, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", bias_init, (self.features,))
        frames = rearrange(x.astype(self.dtype), "b t h w c -> (b t) h w c")
        if self.double:
            y = convolve_doubled(frames, kernel)
        else:
            y = convolve(frames, kernel.astype(self.dtype), self.stride)
        return rearrange(y + bias.astype(self.dtype), "(b t) h w c -> b t h w c", b=x.shape[0])


def linear(x, features: int, name: str, dtype="float32", zero: bool = False):
    """A linear layer with PyTorch's initial weights."""
    kernel, bias = initial(x.shape[-1], zero)
    return nn.Dense(features, dtype=dtype, kernel_init=kernel, bias_init=bias, name=name)(x)


def initial(fan_in: int, zero: bool):
    """Initialisers of weights and biases: zero, or PyTorch's uniform within 1 / sqrt(fan in)."""
    if zero:
        return nn.initializers.zeros, nn.initializers.zeros

    def within(key, shape, dtype=jnp.float32):
        return noise.uniform(key, shape, fan_in**-0.5, dtype)

    return within, within


class ResBlock(nn.Module):
    """Two convolutions modulated by the diffusion time, and a residual."""

    channels: int
    dtype: str = "float32"
    scale_shift: bool = True  # the time scales and shifts, else it is added
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, time, deterministic=True):
        """x: (b, t, h, w, c_in); time: (b or 1, t or 1, 2c or c) from the conditioner."""
        time = rearrange(time, "b t c -> b t 1 1 c").astype(x.dtype)
        h = nn.silu(GroupNorm(name="in_norm")(x))
        h = Conv3x3(self.channels, self.dtype, name="in_conv")(h)
        if self.scale_shift:
            scale, shift = jnp.split(time, 2, axis=-1)
            h = GroupNorm(name="out_norm")(h) * (1 + scale) + shift
        else:
            h = GroupNorm(name="out_norm")(h + time)
        h = nn.Dropout(self.dropout)(nn.silu(h), deterministic=deterministic)
        h = Conv3x3(self.channels, self.dtype, zero=True, name="out_conv")(h)
        if x.shape[-1] != self.channels:
            x = linear(x, self.channels, "skip", self.dtype)
        return x + h


class RelativePositions(NamedTuple):
    """Position terms of one temporal attention, (b or 1, t, u, k, d); row t looks at column u."""

    query: jax.Array
    key: jax.Array
    value: jax.Array


class TemporalAttention(nn.Module):
    """Attention of each pixel over the frames, with relative positions.

    The residual is taken from the normalised input, as upstream does.
    """

    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, positions: RelativePositions, allowed, real=None):
        """x: (b, t, h, w, c); allowed: (b, t, u) bool; real: (b, t) or None."""
        b, _, height, width, c = x.shape
        x = GroupNorm("time", name="norm")(x, real)
        q, k, v = split_heads(linear(x, 3 * c, "qkv", self.dtype), self.heads)
        # Videos that share their position terms are folded into the pixels they apply to.
        shared = positions.query.shape[0]
        fold = "(g b) t h w k d -> g (b h w) t k d"
        q, k, v = (rearrange(a, fold, g=shared) for a in (q, k, v))
        scale = (c // self.heads) ** -0.5
        q = q * scale
        rpe = RelativePositions(*(a.astype(q.dtype) for a in positions))
        logits = jnp.einsum("gntkd,gnukd->gnktu", q, k)
        logits += jnp.einsum("gntkd,gtukd->gnktu", q, rpe.key)
        logits += jnp.einsum("gnukd,gutkd->gnktu", k * scale, rpe.query)
        split = "g (b n) k t u -> (g b) n k t u"
        logits = rearrange(logits.astype(jnp.float32), split, b=b // shared)
        weights = jax.nn.softmax(jnp.where(allowed[:, None, None], logits, -jnp.inf))
        self.sow("intermediates", "weights", weights)
        weights = rearrange(weights, "(g b) n k t u -> g (b n) k t u", g=shared).astype(q.dtype)
        out = jnp.einsum("gnktu,gnukd->gntkd", weights, v)
        out += jnp.einsum("gnktu,gtukd->gntkd", weights, rpe.value)
        out = rearrange(out, "g (b h w) t k d -> (g b) t h w (k d)", h=height, w=width)
        return x + linear(out, c, "proj_out", self.dtype, zero=True)


class SpatialAttention(nn.Module):
    """Attention of each frame over its pixels; the residual is the normalised input."""

    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x):
        """x: (b, t, h, w, c)"""
        b, _, height, _, c = x.shape
        x = GroupNorm(name="norm")(x)
        q, k, v = split_heads(linear(x, 3 * c, "qkv", self.dtype), self.heads)
        q, k, v = (rearrange(a, "b t h w k d -> (b t) (h w) k d") for a in (q, k, v))
        out = attention(q, k, v)
        out = rearrange(out, "(b t) (h w) k d -> b t h w (k d)", b=b, h=height)
        return x + linear(out, c, "proj_out", self.dtype, zero=True)


def split_heads(qkv, heads: int):
    """(..., 3 * k * d) to queries, keys and values (..., k, d)."""
    return rearrange(qkv, "... (three k d) -> three ... k d", three=3, k=heads)


class AttentionBlock(nn.Module):
    """Temporal, then spatial attention."""

    heads: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x, positions, allowed, real=None):
        x = TemporalAttention(self.heads, self.dtype, name="temporal")(x, positions, allowed, real)
        return SpatialAttention(self.heads, self.dtype, name="spatial")(x)
