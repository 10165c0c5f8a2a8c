"""Language stack of Qwen2.5-VL (arXiv:2502.13923) as Cosmos reads it, Cosmos-Reason1-7B.

No pictures go in, so its three position ids are equal and the rotary embedding is the plain one.
The embedding of a prompt is not the last state but those after all layers, each normalised, side
by side (Cosmos-Transfer2.5, `predict2/text_encoders/text_encoder.py`). The blocks are separate
trees that are handed over one by one: all of them have 13 GB.

Upstream computes everything in bfloat16. Here only products are: the residual stream, norms,
softmax and rotations are float32, whose rounding does not add up over 28 layers.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxvid.core.attention import attention
from jaxvid.core.rope import Rope, rotate_halves

TOKENS = 512  # of a prompt, padding included


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Shape of the language stack; the defaults are the release, Qwen2.5-VL-7B."""

    vocabulary: int = 152064  # rows of the table of tokens; more than the tokenizer knows
    width: int = 3584
    hidden: int = 18944  # width of the gated layer
    heads: int = 28
    key_heads: int = 4  # of keys and values, each shared by heads / key_heads queries
    layers: int = 28
    theta: float = 1e6
    epsilon: float = 1e-6
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the products; the rest is float32

    def __post_init__(self):
        if self.width % (2 * self.heads):
            raise ValueError(f"width={self.width} is not a multiple of 2 * heads={2 * self.heads}")
        if self.heads % self.key_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of key_heads={self.key_heads}")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def embedding_width(self) -> int:
        """Channels of a prompt's embedding: the states of all layers side by side."""
        return self.layers * self.width


class RMSNorm(nn.Module):
    """Channels over their root mean square, times a gain; float32 in and out."""

    epsilon: float

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],)).astype(jnp.float32)
        return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon) * scale


def rotations(positions, head_width: int, theta: float) -> Rope:
    """Rope of tokens at positions (n,): angle j is the position times theta^(-2j/d)."""
    pairs = head_width // 2
    frequencies = (theta ** (-np.arange(pairs) / pairs)).astype(np.float32)
    angles = jnp.asarray(positions, jnp.float32)[:, None] * frequencies
    return Rope(jnp.cos(angles), jnp.sin(angles))


class Block(nn.Module):
    """Causal self-attention, then a gated layer; the residual stream is float32.

    Padding is attended to like any other token: upstream has no mask for it.
    """

    config: TextConfig

    @nn.compact
    def __call__(self, x, positions):
        """x: (b, n, c) float32; positions: (n,) int. Returns (b, n, c) float32."""
        config = self.config
        dense = functools.partial(nn.Dense, use_bias=False, dtype=config.dtype)
        y = RMSNorm(config.epsilon, name="norm1")(x)
        y = dense(config.width, name="o")(self._attention(y, positions))
        x = x + y.astype(jnp.float32)
        y = RMSNorm(config.epsilon, name="norm2")(x)
        gate = nn.silu(dense(config.hidden, name="gate")(y).astype(jnp.float32))
        y = gate * dense(config.hidden, name="up")(y).astype(jnp.float32)
        return x + dense(config.width, name="down")(y).astype(jnp.float32)

    def _attention(self, x, positions):
        config = self.config

        def project(name, heads):
            y = nn.Dense(heads * config.head_width, dtype=config.dtype, name=name)(x)
            return rearrange(y, "b n (k d) -> b n k d", k=heads)

        rope = rotations(positions, config.head_width, config.theta)
        q = rotate_halves(project("q", config.heads), rope)
        k = rotate_halves(project("k", config.key_heads), rope)
        v = project("v", config.key_heads)
        causal = np.tri(x.shape[1], dtype=bool)[None, None]
        return rearrange(attention(q, k, v, causal), "b n k d -> b n (k d)")


def init(config: TextConfig, key) -> dict:
    """Random parameters {"embedding", "block_0", ..., "norm"}, float32."""
    keys = jax.random.split(key, config.layers + 1)
    x, positions = jnp.zeros((1, 1, config.width)), jnp.zeros(1, jnp.int32)
    blocks = {
        f"block_{i}": Block(config).init(keys[i], x, positions)["params"]
        for i in range(config.layers)
    }
    table = jax.random.normal(keys[-1], (config.vocabulary, config.width))
    return {"embedding": table, **blocks, "norm": {"scale": jnp.ones(config.width)}}


def abstract_parameters(config: TextConfig) -> dict:
    """Shapes and types of the parameters, without computing them."""
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def run_block(config: TextConfig, params, x, positions):
    return Block(config).apply({"params": params}, x, positions)


def states(config: TextConfig, table, blocks: Iterable, norm, ids, positions=None) -> Iterator:
    """The residual stream after each layer, (b, n, c) float32; the last one through the norm.

    Args:
      table: (vocabulary, c), on the host: only the rows in use are read.
      blocks: the parameters of each block in turn; at most two are kept at a time.
      norm: parameters of the last norm.
      ids: (b, n) tokens.
      positions: (n,) of the tokens; None counts from 0.
    """
    ids = np.asarray(ids)
    if positions is None:
        positions = np.arange(ids.shape[1])
    x = jnp.asarray(np.asarray(table[ids], np.float32))
    for i, params in enumerate(blocks):
        x = run_block(config, params, x, positions)
        jax.block_until_ready(x)  # the next block is read meanwhile, but not all of them
        last = i == config.layers - 1
        yield RMSNorm(config.epsilon).apply({"params": norm}, x) if last else x


def normalised(state):
    """A layer's state, (..., c), less its mean over channels and over their spread.

    The spread is the unbiased one, c - 1 in the divisor, as upstream computes it.
    """
    centred = state - state.mean(-1, keepdims=True)
    variance = jnp.square(centred).sum(-1, keepdims=True) / (state.shape[-1] - 1)
    return centred / (jnp.sqrt(variance) + 1e-8)


@functools.partial(jax.jit, static_argnums=1)
def rounded(state, dtype: str):
    """`normalised` in the type in which embeddings are kept."""
    return normalised(state).astype(dtype)


def embeddings(config: TextConfig, table, blocks: Iterable, norm, ids, positions=None):
    """(b, n, layers * c) of `config.dtype` on the host: the normalised states, layer 1 first.

    Arguments as `states`. Each layer's part leaves the device when it is made.
    """
    found = np.empty((*np.shape(ids), config.layers, config.width), config.dtype)
    for i, x in enumerate(states(config, table, blocks, norm, ids, positions)):
        found[:, :, i] = np.asarray(rounded(x, config.dtype))
    return rearrange(found, "b n l c -> b n (l c)")
