"""Causal training in one call: diffusion forcing and teacher forcing (Self-Forcing).

The masks are made of whole blocks, so attention is computed block by block over the keys that a
block may see. Nothing is masked, and no matrix of queries by keys is needed.
"""

import jax.numpy as jnp

from jaxvid.core.attention import attention
from jaxvid.core.rope import Rope, grid_rope, rotate
from jaxvid.wan.dit import Attend, Dit, WanConfig


def attend_blocks(rope: Rope, block: int, window: int = -1) -> Attend:
    """Every block of tokens sees itself and the tokens before it.

    Args:
      block: tokens of a block.
      window: tokens a block sees, counted back from its end, at least `block`; -1: all.
    """
    if 0 <= window < block:
        raise ValueError(f"a window of {window} tokens is smaller than a block of {block}")

    def attend(q, k, v, memory, layer):
        q, k = rotate(q, rope), rotate(k, rope)
        return _by_block(q, k, v, block, window), memory

    return attend


def attend_teacher(rope: Rope, block: int) -> Attend:
    """Clean tokens, then noisy ones: clean blocks are causal, noisy ones see clean blocks before.

    rope: of all tokens; both halves have the same positions.
    """

    def attend(q, k, v, memory, layer):
        q, k = rotate(q, rope), rotate(k, rope)
        half = q.shape[1] // 2
        outputs = [_by_block(q[:, :half], k[:, :half], v[:, :half], block, -1)]
        for start in range(0, half, block):
            own = slice(half + start, half + start + block)
            keys, values = (jnp.concatenate([a[:, :start], a[:, own]], axis=1) for a in (k, v))
            outputs.append(attention(q[:, own], keys, values))
        return jnp.concatenate(outputs, axis=1), memory

    return attend


def _by_block(q, k, v, block: int, window: int):
    outputs = []
    for start in range(0, q.shape[1], block):
        end = start + block
        seen = slice(0 if window < 0 else max(end - window, 0), end)
        outputs.append(attention(q[:, start:end], k[:, seen], v[:, seen]))
    return jnp.concatenate(outputs, axis=1)


def diffusion_forcing(
    config: WanConfig, params, x, timesteps, text, block: int, window: int = -1, dtype=jnp.float32
):
    """Velocity of noised frames x (b, t, h, w, c), each seeing its block and those before.

    timesteps: (b, t); block, window: in frames; t is a multiple of the block.
    """
    t, h, w = config.grid(*x.shape[1:4])
    rope = grid_rope(config.head_width, jnp.arange(t), h, w)
    attend = attend_blocks(rope, block * h * w, window * h * w if window >= 0 else -1)
    return Dit(config, dtype).apply({"params": params}, x, timesteps, text, attend)[0]


def teacher_forcing(
    config: WanConfig,
    params,
    clean,
    clean_timesteps,
    x,
    timesteps,
    text,
    block: int,
    dtype=jnp.float32,
):
    """Velocity of noised frames x, each seeing its noised block and the clean blocks before.

    clean, x: (b, t, h, w, c); clean_timesteps, timesteps: (b, t), the former 0 unless the
    context is noised on purpose.
    """
    t, h, w = config.grid(*x.shape[1:4])
    rope = grid_rope(config.head_width, jnp.tile(jnp.arange(t), 2), h, w)
    both, times = (
        jnp.concatenate(pair, axis=1) for pair in ((clean, x), (clean_timesteps, timesteps))
    )
    attend = attend_teacher(rope, block * h * w)
    velocity, _ = Dit(config, dtype).apply({"params": params}, both, times, text, attend)
    return velocity[:, t:]
