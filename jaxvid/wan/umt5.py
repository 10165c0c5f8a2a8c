"""UMT5 text encoder (Chung et al., arXiv:2304.09151) as Wan2.1 runs it.

A T5 encoder whose every block has its own table of relative positions (LongLive v1.0,
`wan/modules/t5.py`). The blocks are separate trees that are handed over one by one, because the
released encoder has 11 GB: they can come from the disk as they are needed.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange


@dataclasses.dataclass(frozen=True)
class Umt5Config:
    """Shape of the encoder; the defaults are the release, UMT5-XXL."""

    vocabulary: int = 256384  # rows of the table of tokens; more than the tokenizer knows
    width: int = 4096
    attention_width: int = 4096
    hidden: int = 10240  # width of the gated layers
    heads: int = 64
    layers: int = 24
    buckets: int = 32  # of relative positions, half of them for keys after the query
    max_distance: int = 128  # tokens, from where on distances share the last bucket
    epsilon: float = 1e-6
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the products; the rest is float32

    def __post_init__(self):
        if self.attention_width % self.heads:
            raise ValueError(
                f"attention_width={self.attention_width} is not a multiple of heads={self.heads}"
            )
        if self.buckets % 4 or self.max_distance <= self.buckets // 4:
            raise ValueError(
                f"buckets={self.buckets} must be a multiple of 4, and "
                f"max_distance={self.max_distance} above a quarter of it"
            )


def relative_buckets(tokens: int, buckets: int, max_distance: int) -> np.ndarray:
    """Which row of the table a pair of tokens takes: int32 (query, key).

    Distances up to a quarter of `buckets` have their own, further ones share on a logarithmic
    scale, evaluated in float32 as upstream does.
    """
    distance = np.arange(tokens)[None, :] - np.arange(tokens)[:, None]
    half = buckets // 2
    exact = half // 2
    far = np.abs(distance)
    ratio = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact))
    ratio = ratio / np.float32(np.log(max_distance / exact)) * np.float32(half - exact)
    shared = np.minimum(exact + np.trunc(ratio).astype(np.int32), half - 1)
    return (np.where(far < exact, far, shared) + half * (distance > 0)).astype(np.int32)


class RMSNorm(nn.Module):
    """Channels over their root mean square, times a gain; float32 in and out."""

    epsilon: float

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],)).astype(jnp.float32)
        squares = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
        return x * jax.lax.rsqrt(squares + self.epsilon) * scale


class Block(nn.Module):
    """Self-attention, then a gated layer; the residual stream is float32."""

    config: Umt5Config

    @nn.compact
    def __call__(self, x, mask):
        """x: (b, n, c) float32; mask: (b, n), True for tokens that may be attended to."""
        config = self.config
        dense = functools.partial(nn.Dense, use_bias=False, dtype=config.dtype)
        y = RMSNorm(config.epsilon, name="norm1")(x)
        y = dense(x.shape[-1], name="o")(self._attention(y, mask, dense))
        x = x + y.astype(jnp.float32)
        y = RMSNorm(config.epsilon, name="norm2")(x)
        gate = nn.gelu(dense(config.hidden, name="gate")(y).astype(jnp.float32), approximate=True)
        y = gate * dense(config.hidden, name="fc1")(y).astype(jnp.float32)
        return x + dense(x.shape[-1], name="fc2")(y).astype(jnp.float32)

    def _attention(self, x, mask, dense):
        """Without a scale, and with a bias that no fused kernel takes: not `core.attention`."""
        config = self.config
        q, k, v = (
            rearrange(dense(config.attention_width, name=name)(x), "b n (k d) -> b n k d",
                      k=config.heads)
            for name in ("q", "k", "v")
        )  # fmt: skip
        shape = (config.buckets, config.heads)
        table = self.param("positions", nn.initializers.normal(), shape).astype(jnp.float32)
        buckets = relative_buckets(x.shape[1], config.buckets, config.max_distance)
        bias = rearrange(table[buckets], "n m k -> 1 k n m")
        keys = rearrange(mask, "b m -> b 1 1 m")
        y = jax.nn.dot_product_attention(q, k, v, bias, keys, scale=1.0, implementation="xla")
        return rearrange(y, "b n k d -> b n (k d)")


def init(config: Umt5Config, key) -> dict:
    """Random parameters {"embedding", "block_0", ..., "norm"}, float32."""
    keys = jax.random.split(key, config.layers + 1)
    x, mask = jnp.zeros((1, 1, config.width)), jnp.ones((1, 1), bool)
    blocks = {
        f"block_{i}": Block(config).init(keys[i], x, mask)["params"] for i in range(config.layers)
    }
    table = jax.random.normal(keys[-1], (config.vocabulary, config.width))
    return {"embedding": table, **blocks, "norm": {"scale": jnp.ones(config.width)}}


def abstract_parameters(config: Umt5Config) -> dict:
    """Shapes and types of the parameters, without computing them."""
    return jax.eval_shape(functools.partial(init, config), jax.random.key(0))


@functools.partial(jax.jit, static_argnums=0)
def run_block(config: Umt5Config, params, x, mask):
    return Block(config).apply({"params": params}, x, mask)


def encode(config: Umt5Config, table, blocks: Iterable, norm, tokens: list):
    """Hidden states of token batches; each block serves all batches before the next is asked for.

    Args:
      table: (vocabulary, c), on the host: only the rows in use are read.
      blocks: the parameters of each block in turn; at most two are kept at a time.
      norm: parameters of the last norm.
      tokens: batches of (ids, mask), both (b, n); batches may differ in shape.
    Returns:
      a list with (b, n, c) float32 for each batch; rows of padding hold numbers too.
    """
    states = [jnp.asarray(table[np.asarray(ids)]).astype(jnp.float32) for ids, _ in tokens]
    masks = [jnp.asarray(mask, bool) for _, mask in tokens]
    for params in blocks:
        new = [run_block(config, params, x, mask) for x, mask in zip(states, masks, strict=True)]
        jax.block_until_ready(states)  # the next block is read meanwhile, but not all of them
        states = new
    return [RMSNorm(config.epsilon).apply({"params": norm}, x) for x in states]


def prompt_rows(states, mask) -> list[np.ndarray]:
    """Of each prompt, the (length, c) rows of its own tokens."""
    lengths = np.asarray(mask).sum(axis=1)
    return [np.asarray(x[:length]) for x, length in zip(states, lengths, strict=True)]


def pad_rows(rows: list[np.ndarray], tokens: int) -> np.ndarray:
    """(b, tokens, c) with zeros after each prompt, which the transformer attends to as they are."""
    padded = np.zeros((len(rows), tokens, rows[0].shape[1]), rows[0].dtype)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded
