"""Layers of the Wan2.1 video VAE: causal in time, so that videos can be coded piece by piece.

A layer with extent in time sees the last frames of its own input before the present piece. It
takes them as `past` and returns those for the next piece; `None` is the start of a video.
(LongLive v1.0, `wan/modules/vae.py`.)
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxvid.core.convolution import convolve, convolve_doubled

Implementation = Literal["auto", "3d", "2d"]
LAYOUT = ("NDHWC", "DHWIO", "NDHWC")
TAPS = 3  # frames that a convolution sees
KERNEL_INIT = nn.initializers.lecun_normal()


class RMSNorm(nn.Module):
    """Channels at unit length times sqrt(c) and a gain; zero stays zero.

    In float32, since squares of half precision lose too much.
    """

    @nn.compact
    def __call__(self, x):
        """x: (..., c); returns the same shape and type."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,)).astype(jnp.float32)
        wide = x.astype(jnp.float32)
        squares = jnp.sum(jnp.square(wide), axis=-1, keepdims=True)
        unit = wide * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))  # the length is at least 1e-12
        return (unit * (channels**0.5 * scale)).astype(x.dtype)


def with_past(x, past, frames: int):
    """`past` (zeros if None) in front of `x`, along time."""
    if past is None:
        past = jnp.zeros((x.shape[0], frames, *x.shape[2:]), x.dtype)
    return jnp.concatenate([past.astype(x.dtype), x], axis=1)


def convolve_frames(x, kernel, implementation: Implementation = "auto"):
    """A 3x3x3 convolution, zero padding of 1 around each frame, none in time.

    Args:
      x: (b, t, h, w, c)
      kernel: (3, 3, 3, c, features)
      implementation: "3d" is one convolution; "2d" puts the three frames side by side as channels
        of one image convolution, several times faster on CPUs; "auto" is "2d" on CPUs, else "3d".
    Returns:
      (b, t - 2, h, w, features)
    """
    if implementation == "auto":
        implementation = "2d" if _platform() == "cpu" else "3d"
    if implementation == "3d":
        padding = ((0, 0), (1, 1), (1, 1))
        return jax.lax.conv_general_dilated(x, kernel, (1, 1, 1), padding, dimension_numbers=LAYOUT)
    frames = x.shape[1] - TAPS + 1
    side_by_side = jnp.concatenate([x[:, i : i + frames] for i in range(TAPS)], axis=-1)
    images = rearrange(side_by_side, "b t h w c -> (b t) h w c")
    y = convolve(images, rearrange(kernel, "t y x c f -> y x (t c) f"))
    return rearrange(y, "(b t) h w f -> b t h w f", t=frames)


def _platform() -> str:
    """Of the mesh's devices, which need not be there, or JAX's own."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def over_frames(function, x):
    """Applies a function of images (n, h, w, c) to the frames of x (b, t, h, w, c)."""
    y = function(rearrange(x, "b t h w c -> (b t) h w c"))
    return rearrange(y, "(b t) h w c -> b t h w c", b=x.shape[0])


class CausalConv(nn.Module):
    """3x3x3 convolution over the present and the two frames before."""

    features: int
    dtype: str
    implementation: Implementation = "auto"

    @nn.compact
    def __call__(self, x, past=None):
        """x: (b, t, h, w, c); past: (b, 2, h, w, c) or None. Returns the output and the new past.

        The first frame of a video meets zeros in two of the three taps, which are left out.
        """
        shape = (TAPS, 3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", KERNEL_INIT, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        x = x.astype(self.dtype)
        seen = with_past(x, past, TAPS - 1)
        if past is None and x.shape[1] == 1:
            y = over_frames(lambda images: convolve(images, kernel[-1]), x)
        else:
            y = convolve_frames(seen, kernel, self.implementation)
        return y + bias, seen[:, -(TAPS - 1) :]


class TimeConv(nn.Module):
    """Convolution of 3 frames at each pixel, without padding."""

    features: int
    dtype: str
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        """x: (b, t, h, w, c), t at least 3; returns (b, (t - 3) // stride + 1, h, w, features)."""
        shape = (TAPS, x.shape[-1], self.features)
        kernel = self.param("kernel", KERNEL_INIT, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        last = x.shape[1] - TAPS
        taps = [x[:, i : i + last + 1 : self.stride] for i in range(TAPS)]
        side_by_side = jnp.concatenate(taps, axis=-1)
        return side_by_side @ rearrange(kernel, "t c f -> (t c) f") + bias


class Residual(nn.Module):
    """Twice norm, SiLU, causal convolution; plus the input, projected if the width changes."""

    features: int
    dtype: str
    implementation: Implementation = "auto"

    @nn.compact
    def __call__(self, x, past=None):
        """x: (b, t, h, w, c); past: None or what the call before returned."""
        y, kept = x, {}
        for i in (1, 2):
            y = nn.silu(RMSNorm(name=f"norm{i}")(y))
            conv = CausalConv(self.features, self.dtype, self.implementation, name=f"conv{i}")
            y, kept[f"conv{i}"] = conv(y, past and past[f"conv{i}"])
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features, dtype=self.dtype, name="shortcut")(x)
        return x + y, kept


class FrameAttention(nn.Module):
    """Attention among the pixels of each frame, one head as wide as the channels.

    No fused kernel takes heads of this width, and frames are whole here: it does not go through
    `core.attention`, and the partitioner gathers keys and values where frames are split. Pixels
    go column by column, so that frames split along the width stay split.
    """

    dtype: str

    @nn.compact
    def __call__(self, x):
        """x: (b, t, h, w, c)"""
        b, _, h, _, c = x.shape
        qkv = nn.Dense(3 * c, dtype=self.dtype, name="qkv")(RMSNorm(name="norm")(x))
        pixels = rearrange(qkv, "b t h w (s c) -> s (b t) (w h) 1 c", s=3)
        y = jax.nn.dot_product_attention(*pixels, implementation="xla")
        y = rearrange(y, "(b t) (w h) 1 c -> b t h w c", b=b, h=h)
        return x + nn.Dense(c, dtype=self.dtype, name="proj")(y)


class Downsample(nn.Module):
    """Halves height and width, and, if `time`, the frames after the first one of a video."""

    time: bool
    dtype: str

    @nn.compact
    def __call__(self, x, past=None):
        """x: (b, t, h, w, c); with `time`, t is odd at the start of a video and even later."""
        channels = x.shape[-1]
        kernel = self.param("kernel", KERNEL_INIT, (3, 3, channels, channels)).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,)).astype(self.dtype)
        right_and_bottom = ((0, 1), (0, 1))
        x = over_frames(lambda images: convolve(images, kernel, 2, right_and_bottom), x) + bias
        if not self.time:
            return x, None
        seen = jnp.concatenate([past["time_conv"], x], axis=1) if past else x
        y = x[:, :0]
        if seen.shape[1] >= TAPS:
            y = TimeConv(channels, self.dtype, stride=2, name="time_conv")(seen)
        if not past:  # the first frame passes, and is seen by the window after it
            y = jnp.concatenate([x[:, :1], y], axis=1)
        return y, {"time_conv": x[:, -1:]}


class Upsample(nn.Module):
    """Doubles height and width, and, if `time`, the frames after the first one of a video.

    The convolution halves the channels. Nothing of the first frame enters the doubling in time.
    """

    time: bool
    dtype: str

    @nn.compact
    def __call__(self, x, past=None):
        """x: (b, t, h, w, c); returns (b, 2t or 2t - 1, 2h, 2w, c // 2) and the new past."""
        kept = None
        if self.time:
            x, seen = self._double_time(x, past and past["time_conv"])
            kept = {"time_conv": seen}
        channels = x.shape[-1]
        kernel = self.param("kernel", KERNEL_INIT, (3, 3, channels, channels // 2))
        bias = self.param("bias", nn.initializers.zeros, (channels // 2,)).astype(self.dtype)
        kernel = kernel.astype(jnp.float32)  # its rows and columns are summed before the cast
        return over_frames(lambda images: convolve_doubled(images, kernel), x) + bias, kept

    def _double_time(self, x, past):
        first, rest = (x[:, :1], x[:, 1:]) if past is None else (x[:, :0], x)
        seen = with_past(rest, past, TAPS - 1)
        if rest.shape[1]:
            doubled = TimeConv(2 * x.shape[-1], self.dtype, name="time_conv")(seen)
            rest = rearrange(doubled, "b t h w (s c) -> b (t s) h w c", s=2)  # earlier, later
        return jnp.concatenate([first, rest], axis=1), seen[:, -(TAPS - 1) :]
