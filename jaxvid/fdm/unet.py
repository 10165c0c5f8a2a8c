"""FDM's video UNet: convolutions over each frame, attention over frames and over pixels.

Both upstream generations are this network with other switches (Harvey et al., arXiv:2205.11495,
section 4; `improved_diffusion/unet.py` and `rpe.py`). What depends only on diffusion time and
frame indices lives in `Conditioner` (see conditioning.py), so that a sampler computes it once per
call instead of at every evaluation.
"""

import dataclasses
import functools
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxvid.fdm.layers import GROUPS, AttentionBlock, Conv3x3, GroupNorm, ResBlock

MULTIPLIERS = {256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4), 32: (1, 2, 2, 2)}


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """Shape and switches of the network; the defaults are the refactored generation at 64 px."""

    image_size: int = 64
    channels: int = 128  # of the first level, a multiple of 32
    channel_mult: tuple[int, ...] = ()  # width of each level; () is upstream's choice for the size
    res_blocks: int = 1  # per level
    attention_at: tuple[int, ...] = (4, 8)  # downsampling factors that have attention
    heads: int = 4
    heads_up: int = -1  # heads of the output blocks, -1 as `heads`
    dropout: float = 0.0
    scale_shift_norm: bool = True
    image_channels: int = 3
    out_channels: int = 3  # 6 with learned variance
    indicator: Literal["observed", "observed+marginal", "duplicate", "timestep"] = "observed"
    positions: Literal["network", "table"] = "network"
    buckets: tuple[int, ...] = ()  # alpha, beta, gamma of the position table
    spatial_encoding: bool = False
    frame_encoding: bool = False
    centre_frames: bool = False  # subtract the mean index before the frame encoding
    train_frames: int = 0  # length of the training videos, period of the frame encoding
    padding_attends: bool = True  # padding frames attend to each other, not only to themselves
    remat: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the convolutions and products

    def __post_init__(self):
        for field in ("image_size", "channels", "res_blocks", "heads", "image_channels"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}={getattr(self, field)} must be at least 1")
        if self.heads_up < 1 and self.heads_up != -1:
            raise ValueError(f"heads_up={self.heads_up} must be at least 1, or -1 for heads")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} is not in [0, 1)")
        if self.out_channels not in (self.image_channels, 2 * self.image_channels):
            raise ValueError(
                f"out_channels={self.out_channels} is neither image_channels={self.image_channels} "
                "nor twice that, for a learned variance"
            )
        if not self.channel_mult and self.image_size not in MULTIPLIERS:
            raise ValueError(
                f"image_size={self.image_size} has no standard channel_mult; "
                f"use one of {sorted(MULTIPLIERS)} or set channel_mult"
            )
        if self.channels % GROUPS:
            raise ValueError(f"channels={self.channels} is not a multiple of {GROUPS}")
        if self.image_size % 2 ** (len(self.mult) - 1):
            raise ValueError(
                f"image_size={self.image_size} cannot be halved {len(self.mult) - 1} times"
            )
        factors = [2**level for level in range(len(self.mult))]
        if wrong := [factor for factor in self.attention_at if factor not in factors]:
            raise ValueError(f"attention_at={wrong[0]} is no level of the network: use {factors}")
        for heads in (self.heads, self.heads_out):
            if self.channels % heads:
                raise ValueError(f"channels={self.channels} is not a multiple of heads={heads}")
        if self.positions == "table" and len(self.buckets) != 3:
            raise ValueError(f"buckets={self.buckets}: positions='table' needs alpha, beta, gamma")

    @property
    def mult(self) -> tuple[int, ...]:
        return self.channel_mult or MULTIPLIERS[self.image_size]

    @property
    def heads_out(self) -> int:
        return self.heads if self.heads_up == -1 else self.heads_up

    @property
    def in_channels(self) -> int:
        extra = {"observed": 1, "observed+marginal": 2, "duplicate": self.image_channels}
        return self.image_channels + extra.get(self.indicator, 0)


class Frames(NamedTuple):
    """The frames of one call; masks are float (b, t) of 0 and 1.

    A frame with no mask set is padding as FDM's training uses it: it forms an attention group of
    its own and takes part in the temporal normalisation. A frame with `real` 0 does not exist: it
    only fills a static shape and changes no other frame.
    """

    indices: jax.Array  # (b, t) positions in the whole video
    observed: jax.Array
    latent: jax.Array
    marginal: jax.Array | None = None  # fed without content ("kinda-marginal", paper generation)
    real: jax.Array | None = None

    @property
    def used(self) -> jax.Array:
        """(b, t) 1 where the frame is observed, latent or marginal."""
        extra = 0 if self.marginal is None else self.marginal
        return jnp.minimum(self.observed + self.latent + extra, 1)


class Block(NamedTuple):
    """One block of the network; its name is upstream's key with underscores."""

    name: str
    kind: str  # conv, res, attention, down, up
    channels: int
    heads: int = 0


def layout(config: UNetConfig) -> tuple[list[list[Block]], list[list[Block]], list[list[Block]]]:
    """Input, middle and output stages; a skip connection leaves each input stage."""
    inputs = [[Block("input_blocks_0_0", "conv", config.channels)]]
    factor = 1
    for level, mult in enumerate(config.mult):
        channels = mult * config.channels
        for _ in range(config.res_blocks):
            inputs.append(_stage("input_blocks", inputs, channels, factor, config, config.heads))
        if level < len(config.mult) - 1:
            inputs.append([Block(f"input_blocks_{len(inputs)}_0", "down", channels)])
            factor *= 2
    middle = [
        [
            Block("middle_block_0", "res", channels),
            Block("middle_block_1", "attention", channels, config.heads),
            Block("middle_block_2", "res", channels),
        ]
    ]
    outputs = []
    for level in reversed(range(len(config.mult))):
        channels = config.mult[level] * config.channels
        for j in range(config.res_blocks + 1):
            stage = _stage("output_blocks", outputs, channels, factor, config, config.heads_out)
            if level and j == config.res_blocks:
                stage.append(Block(f"output_blocks_{len(outputs)}_{len(stage)}", "up", channels))
                factor //= 2
            outputs.append(stage)
    return inputs, middle, outputs


def _stage(side, stages, channels, factor, config, heads) -> list[Block]:
    name = f"{side}_{len(stages)}"
    stage = [Block(f"{name}_0", "res", channels)]
    if factor in config.attention_at:
        stage.append(Block(f"{name}_1", "attention", channels, heads))
    return stage


def encoding_block(config: UNetConfig) -> tuple[int, int, int]:
    """Where positional encodings are added: input stage, channels, side in pixels."""
    inputs, _, _ = layout(config)
    index, channels, side = 0, config.channels, config.image_size
    for stage in inputs:
        if any(block.kind == "attention" for block in stage):
            break
        index += 1
        channels = stage[-1].channels
        side //= 2 if stage[-1].kind == "down" else 1
    return index - 1, channels, side


def network_input(x, x0, frames: Frames, indicator: str):
    """The input of the first convolution: noisy and clean frames and what tells them apart.

    x, x0: (b, t, h, w, c) noisy and clean frames; returns (b, t, h, w, c + extra).
    """

    def wide(mask):
        return rearrange(mask, "b t -> b t 1 1 1").astype(x.dtype)

    observed, latent, used = wide(frames.observed), wide(frames.latent), wide(frames.used)
    plane = jnp.ones_like(x[..., :1])
    if indicator == "observed":
        return jnp.concatenate([x * (1 - observed) + x0 * observed, plane * observed], -1)
    if indicator == "observed+marginal":
        marginal = jnp.zeros_like(observed) if frames.marginal is None else wide(frames.marginal)
        mixed = x * latent + x0 * observed + x * (1 - used)
        return jnp.concatenate([mixed, plane * observed, plane * marginal], -1)
    if indicator == "duplicate":
        return jnp.concatenate([x * latent + x * (1 - used), x0 * observed], -1)
    return x  # "timestep": the conditioning alone marks observed frames


def allowed_pairs(frames: Frames, padding_attends: bool):
    """(b, t, u) True where frame t may attend to frame u: used frames among themselves."""
    used = frames.used
    pairs = used[:, :, None] * used[:, None, :]
    itself = jnp.eye(used.shape[1], dtype=bool)
    if padding_attends:
        pairs = pairs + (1 - used)[:, :, None] * (1 - used)[:, None, :]
    pairs = (pairs > 0) | itself
    if frames.real is not None:
        exists = frames.real > 0
        pairs = (pairs & exists[:, :, None] & exists[:, None, :]) | itself
    return pairs


class UNet(nn.Module):
    """Predicts the noise (or the clean frames) from noisy ones."""

    config: UNetConfig

    @nn.compact
    def __call__(self, x, x0, frames: Frames, conditioning, deterministic=True):
        """Maps noisy frames to the prediction.

        Args:
          x: (b, t, h, w, c) noisy frames.
          x0: (b, t, h, w, c) clean frames, used where observed.
          frames: masks and indices.
          conditioning: output of `Conditioner` for the same frames.
          deterministic: False draws dropout from the "dropout" key.
        Returns:
          (b, t, h, w, out_channels) float32.
        """
        config = self.config
        inputs, middle, outputs = layout(config)
        allowed = allowed_pairs(frames, config.padding_attends)
        res, attend = ResBlock, AttentionBlock
        switches = (config.dtype, config.scale_shift_norm, config.dropout)
        if config.remat:
            res = nn.remat(ResBlock, static_argnums=(3,))
            attend = nn.remat(AttentionBlock)

        def run(h, stage):
            for block in stage:
                if block.kind == "res":
                    time = conditioning[block.name]
                    h = res(block.channels, *switches, name=block.name)(h, time, deterministic)
                elif block.kind == "attention":
                    positions = conditioning[block.name]
                    attention = attend(block.heads, config.dtype, name=block.name)
                    h = attention(h, positions, allowed, frames.real)
                else:
                    stride = 2 if block.kind == "down" else 1
                    conv = functools.partial(Conv3x3, double=block.kind == "up", name=block.name)
                    h = conv(block.channels, config.dtype, stride)(h)
            return h

        h = network_input(x, x0, frames, config.indicator).astype(config.dtype)
        encode_after, channels, side = encoding_block(config)
        skips = []
        for index, stage in enumerate(inputs):
            h = run(h, stage)
            skips.append(h)  # before the encodings: the skip does not contain them
            if index == encode_after and config.spatial_encoding:
                normal = nn.initializers.normal(1.0)
                encoding = self.param("spatial_encoding", normal, (side, side, channels))
                h = h + encoding.astype(h.dtype)
            if index == encode_after and config.frame_encoding:
                encoding = conditioning["frame_encoding"]
                h = h + rearrange(encoding, "b t c -> b t 1 1 c").astype(h.dtype)
        h = run(h, middle[0])
        for stage in outputs:
            h = run(jnp.concatenate([h, skips.pop()], -1), stage)
        h = nn.silu(GroupNorm(name="out_norm")(h))
        h = Conv3x3(config.out_channels, config.dtype, zero=True, name="out_conv")(h)
        return h.astype(jnp.float32)
