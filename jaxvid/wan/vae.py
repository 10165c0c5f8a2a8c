"""Wan2.1 video VAE (LongLive v1.0, `wan/modules/vae.py`; Cosmos ships the same as `wan2pt1.py`).

The network is causal: a video can be coded whole, or piece by piece with a cache, with the same
result. Latents are normalised by constants per channel, as the diffusion models want them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import PartitionSpec as P

from jaxvid.core.mesh import constrain
from jaxvid.wan.vae_layers import (
    CausalConv,
    Downsample,
    FrameAttention,
    Implementation,
    Residual,
    RMSNorm,
    Upsample,
)

MEAN = (-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508,
        0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921)  # fmt: skip
STD = (2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
       3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160)  # fmt: skip
RULES = ((r".*", P()),)  # replicated: a quarter of a gigabyte in bfloat16
SPLIT = (("data", "view"), None, None, ("seq", "tensor"))  # of activations: batch and width


@dataclasses.dataclass(frozen=True)
class VaeConfig:
    """Shape of the VAE; the defaults are the Wan2.1 release."""

    width: int = 96  # channels of the first level
    latent_channels: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)  # width of each level; each border halves sizes
    blocks: int = 2  # residual blocks per level of the encoder, the decoder has one more
    halve_time: tuple[bool, ...] = (False, True, True)  # at which borders of the encoder
    mean: tuple[float, ...] = MEAN  # of the latents, per channel; not in the checkpoint
    std: tuple[float, ...] = STD
    dtype: Literal["float32", "bfloat16"] = "float32"  # of convolutions and activations
    convolution: Implementation = "auto"  # how 3x3x3 ones are computed, see convolve_frames
    round_constants: bool = False  # mean, std and latents in `dtype`, as upstream's bfloat16 runs

    def __post_init__(self):
        for field in ("width", "latent_channels", "blocks"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} must be at least 1")
        if len(self.halve_time) != len(self.multipliers) - 1:
            raise ValueError(
                f"{len(self.multipliers)} multipliers have {len(self.multipliers) - 1} borders, "
                f"but halve_time={self.halve_time} names {len(self.halve_time)}"
            )
        for field in ("mean", "std"):
            if len(getattr(self, field)) != self.latent_channels:
                raise ValueError(
                    f"{field} has {len(getattr(self, field))} numbers: give one for each of the "
                    f"{self.latent_channels} latent channels"
                )

    @property
    def time_stride(self) -> int:
        """Pixel frames per latent frame, after the first one of each."""
        return 2 ** sum(self.halve_time)

    @property
    def space_stride(self) -> int:
        """Pixels per latent pixel along height and width."""
        return 2 ** len(self.halve_time)

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a video; raises ValueError if it has none or some would be cut off."""
        stride = self.time_stride
        if frames < 1 or (frames - 1) % stride:
            nearest = max(0, (frames - 1) // stride) * stride + 1
            raise ValueError(
                f"{frames} frames do not fit the VAE: use {stride} * k + 1, e.g. {nearest}"
            )
        return (frames - 1) // stride + 1

    def pixel_frames(self, latent_frames: int) -> int:
        """Frames that the decoder makes of a whole latent video."""
        return (latent_frames - 1) * self.time_stride + 1

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the latents; raises ValueError if pixels would be cut off."""
        stride = self.space_stride
        if height % stride or width % stride or min(height, width) < stride:
            nearest = [max(stride, round(n / stride) * stride) for n in (height, width)]
            raise ValueError(
                f"{height}x{width} pixels do not fit the VAE: use multiples of {stride}, "
                f"e.g. {nearest[0]}x{nearest[1]}"
            )
        return height // stride, width // stride


class Encoder(nn.Module):
    """Video to the mean and log-variance of its latents, not normalised."""

    config: VaeConfig

    @nn.compact
    def __call__(self, video, past=None):
        """video: (b, t, h, w, 3) in [-1, 1]; past: None, or what the call before returned.

        Returns (b, t', h', w', 2 * latent channels) and the new past.
        """
        config, number = self.config, itertools.count()
        layers = [_conv(config, config.width, "conv_in")]
        for level, multiplier in enumerate(config.multipliers):
            width = config.width * multiplier
            for _ in range(config.blocks):
                layers.append(_residual(config, width, f"down_{next(number)}"))
            if level < len(config.halve_time):
                time = config.halve_time[level]
                layers.append(Downsample(time, config.dtype, name=f"down_{next(number)}"))
        moments = 2 * config.latent_channels
        x, kept = _through([*layers, *_middle(config), *_head(config, moments)], video, past)
        return nn.Dense(moments, dtype=config.dtype, name="quant")(x), kept


class Decoder(nn.Module):
    """Latents, not normalised, to video."""

    config: VaeConfig

    @nn.compact
    def __call__(self, latents, past=None):
        """latents: (b, t, h, w, c); past: None, or what the call before returned.

        Returns (b, t', h', w', 3), about [-1, 1] but not clipped to it, and the new past.
        """
        config, number = self.config, itertools.count()
        x = nn.Dense(config.latent_channels, dtype=config.dtype, name="post_quant")(latents)
        layers = [_conv(config, config.width * config.multipliers[-1], "conv_in")]
        layers += _middle(config)
        for level in reversed(range(len(config.multipliers))):
            width = config.width * config.multipliers[level]
            for _ in range(config.blocks + 1):
                layers.append(_residual(config, width, f"up_{next(number)}"))
            if level > 0:
                time = config.halve_time[level - 1]
                layers.append(Upsample(time, config.dtype, name=f"up_{next(number)}"))
        return _through([*layers, *_head(config, 3)], x, past)


def _conv(config: VaeConfig, features: int, name: str) -> CausalConv:
    return CausalConv(features, config.dtype, config.convolution, name=name)


def _residual(config: VaeConfig, features: int, name: str) -> Residual:
    return Residual(features, config.dtype, config.convolution, name=name)


def _middle(config: VaeConfig) -> list[nn.Module]:
    width = config.width * config.multipliers[-1]
    attention = FrameAttention(config.dtype, name="mid_1")
    return [_residual(config, width, "mid_0"), attention, _residual(config, width, "mid_2")]


def _head(config: VaeConfig, features: int) -> list:
    norm = RMSNorm(name="norm_out")
    return [lambda x: nn.silu(norm(x)), _conv(config, features, "conv_out")]


def _through(layers: Iterable, x, past):
    """Applies layers in turn; the new past holds, by name, what each wants to see next time."""
    kept = {}
    for layer in layers:
        if isinstance(layer, CausalConv | Residual | Downsample | Upsample):
            x, seen = layer(x, past and past.get(layer.name))
            kept |= {} if seen is None else {layer.name: seen}
        else:
            x = layer(x)
        x = constrain(x, *SPLIT)
    return x, kept


def init(config: VaeConfig, key) -> dict:
    """Random parameters {"encoder", "decoder"}, float32."""
    encoder_key, decoder_key = jax.random.split(key)
    pixels, latents = config.space_stride, config.latent_channels
    video = jnp.zeros((1, 1 + config.time_stride, pixels, pixels, 3))
    coded = jnp.zeros((1, 2, 1, 1, latents))
    return {
        "encoder": Encoder(config).init(encoder_key, video)["params"],
        "decoder": Decoder(config).init(decoder_key, coded)["params"],
    }


def abstract_parameters(config: VaeConfig) -> dict:
    """Shapes and types of the parameters, without computing them."""
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


def constants(config: VaeConfig):
    """Mean and reciprocal standard deviation of the latents, (c,) each.

    float32, unless the config asks for the rounding of upstream's bfloat16 runs.
    """
    dtype = config.dtype if config.round_constants else "float32"
    mean, std = jnp.array(config.mean, dtype), jnp.array(config.std, dtype)
    return mean, 1 / std


def encode_next(config: VaeConfig, params, video, past=None):
    """Latents of the next frames of a video.

    Args:
      params: with the parameters of `Encoder` as "encoder".
      video: (b, t, h, w, 3) in [-1, 1]; t is stride * k + 1 at the start of a video and stride * k
        later, where stride is `config.time_stride`.
      past: None at the start, later the second result of the call before (it can be donated).
    Returns:
      (b, t', h / 8, w / 8, c) float32 normalised latents, and the past for the next call.
    Raises:
      ValueError: another number of frames.
    """
    if past is None:
        config.latent_frames(video.shape[1])
    elif video.shape[1] % config.time_stride:
        raise ValueError(
            f"{video.shape[1]} frames do not fit the VAE after the first piece of a video: use "
            f"multiples of {config.time_stride}"
        )
    moments, past = Encoder(config).apply({"params": params["encoder"]}, video, past)
    mean, scale = constants(config)
    latents = (moments[..., : config.latent_channels].astype(mean.dtype) - mean) * scale
    return latents.astype(jnp.float32), past


def decode_next(config: VaeConfig, params, latents, past=None):
    """Frames of the next latents of a video; the inverse of `encode_next`.

    Args:
      params: with the parameters of `Decoder` as "decoder".
      latents: (b, t, h, w, c) normalised, any t.
      past: None at the start, later the second result of the call before (it can be donated).
    Returns:
      (b, t', 8h, 8w, 3) float32, about [-1, 1] but not clipped to it; t' is stride * (t - 1) + 1
      at the start of a video and stride * t later. And the past for the next call.
    """
    mean, scale = constants(config)
    plain = latents.astype(mean.dtype) / scale + mean
    video, past = Decoder(config).apply({"params": params["decoder"]}, plain, past)
    return video.astype(jnp.float32), past


def encode(config: VaeConfig, params, video, step: int | None = None):
    """Normalised latents of whole videos (b, t, h, w, 3) in [-1, 1]; see `encode_next`.

    step: latent frames at a time, which bounds the memory; None takes the whole video at once.
    """
    frames = None if step is None else step * config.time_stride
    return _in_steps(functools.partial(encode_next, config, params), video, frames)


def decode(config: VaeConfig, params, latents, step: int | None = None):
    """Whole videos of normalised latents (b, t, h, w, c), not clipped; see `decode_next`.

    step: latent frames at a time, which bounds the memory; None takes all at once.
    """
    return _in_steps(functools.partial(decode_next, config, params), latents, step)


def _in_steps(next_piece, x, step: int | None):
    """The first frame, then a scan over pieces of `step` frames, then the rest."""
    if step is None:
        return next_piece(x)[0]
    if step < 1:
        raise ValueError(f"step={step} must be at least 1, or None for the whole video")
    first, past = next_piece(x[:, :1])
    pieces = (x.shape[1] - 1) // step
    outputs, end = [first], 1 + pieces * step
    if pieces:
        middle = rearrange(x[:, 1:end], "b (s t) h w c -> s b t h w c", t=step)
        past, y = jax.lax.scan(lambda past, piece: next_piece(piece, past)[::-1], past, middle)
        outputs.append(rearrange(y, "s b t h w c -> b (s t) h w c"))
    if end < x.shape[1]:
        outputs.append(next_piece(x[:, end:], past)[0])
    return jnp.concatenate(outputs, axis=1)


def decode_with_seams(config: VaeConfig, params, latents, chunk: int):
    """Decodes every `chunk` latents as a video of its own, as upstream's `decode_to_pixel_chunk`.

    For parity only: each chunk is `time_stride - 1` frames short and the seams are visible.
    """
    pieces = [latents[:, i : i + chunk] for i in range(0, latents.shape[1], chunk)]
    return jnp.concatenate([decode(config, params, piece) for piece in pieces], axis=1)
