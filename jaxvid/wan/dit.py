"""The Wan2.1 diffusion transformer, bidirectional and causal (arXiv:2503.20314).

Both are one network. It knows tokens, timesteps and text; which tokens a layer's queries look at,
at which positions, and what is kept of the keys is an `attend` function that the caller hands in:
`attend_all` here, cached attention in `longlive.cache`.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jax.sharding import PartitionSpec as P

from jaxvid.core.attention import SEQUENCE, attention
from jaxvid.core.mesh import constrain
from jaxvid.core.rope import Rope, grid_rope, rotate
from jaxvid.wan.embeddings import PatchEmbedding, TimeEmbedding, layer_norm, unpatchify
from jaxvid.wan.lora import Dense

Attend = Callable  # (q, k, v, memory, layer) -> (output, memory); q, k, v (b, n, k, d) unrotated

RULES = (  # matrices by outputs, then by inputs; the embeddings are small
    (r".*blocks/(self_attn|cross_attn)/[qkv]/kernel", P(None, None, "tensor")),
    (r".*blocks/(self_attn|cross_attn)/[qkv]/bias", P(None, "tensor")),
    (r".*blocks/ffn_in/kernel", P(None, None, "tensor")),
    (r".*blocks/ffn_in/bias", P(None, "tensor")),
    (r".*blocks/((self_attn|cross_attn)/o|ffn_out)/kernel", P(None, "tensor", None)),
    (r".*", P()),
)


@dataclasses.dataclass(frozen=True)
class WanConfig:
    """Shape of the transformer; the defaults are the 1.3B release."""

    depth: int = 30
    width: int = 1536
    heads: int = 12
    mlp: int = 8960  # width between the two layers of a block's feed-forward part
    channels: int = 16  # of the latents
    patch: tuple[int, int, int] = (1, 2, 2)  # frames, rows, columns
    text_width: int = 4096
    text_length: int = 512
    frequencies: int = 256  # width of the timestep's sinusoid
    epsilon: float = 1e-6  # of all norms
    remat: bool = False  # recompute each block's inner values for the gradient

    def __post_init__(self):
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width={self.width} over heads={self.heads} is no even head width: "
                "use a width that is a multiple of 2 * heads"
            )

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Tokens per axis of latents (t, h, w); raises ValueError if patches do not fit."""
        sizes = (frames, height, width)
        if any(size % part or not size for size, part in zip(sizes, self.patch, strict=True)):
            raise ValueError(
                f"latents of {frames} frames {height}x{width} are no multiples of the patch "
                f"{self.patch}: use multiples"
            )
        return tuple(size // part for size, part in zip(sizes, self.patch, strict=True))


class KV(NamedTuple):
    """Keys and values, (..., m, k, d)."""

    k: jax.Array
    v: jax.Array


def attend_all(rope: Rope, mask=None) -> Attend:
    """Every token looks at every token of the call, or where `mask` (1, 1, n, n) allows it."""

    def attend(q, k, v, memory, layer):
        return attention(rotate(q, rope), rotate(k, rope), v, mask), memory

    return attend


class Attention(nn.Module):
    """The projections of an attention layer.

    Queries and keys are RMS-normalised over all channels, before the split into heads.
    """

    config: WanConfig
    dtype: jnp.dtype

    def setup(self):
        dense = functools.partial(Dense, self.config.width, dtype=self.dtype)
        norm = functools.partial(nn.RMSNorm, epsilon=self.config.epsilon, dtype=self.dtype)
        self.q, self.k, self.v, self.o = dense(), dense(), dense(), dense()
        self.norm_q, self.norm_k = norm(), norm()

    def queries(self, x):
        return self._heads(self.norm_q(self.q(x)))

    def keys(self, x) -> KV:
        return KV(self._heads(self.norm_k(self.k(x))), self._heads(self.v(x)))

    def output(self, x):
        return self.o(rearrange(x, "b n k d -> b n (k d)"))

    def _heads(self, x):
        return rearrange(x, "b n (k d) -> b n k d", k=self.config.heads)


class Block(nn.Module):
    """Self-attention, cross-attention to the text, feed-forward."""

    config: WanConfig
    dtype: jnp.dtype

    def setup(self):
        config = self.config
        scale = nn.initializers.normal(config.width**-0.5)
        self.modulation = self.param("modulation", scale, (6, config.width))
        self.self_attn = Attention(config, self.dtype)
        self.cross_attn = Attention(config, self.dtype)
        self.norm3 = nn.LayerNorm(config.epsilon, dtype=self.dtype, use_fast_variance=False)
        self.ffn_in = Dense(config.mlp, dtype=self.dtype)
        self.ffn_out = Dense(config.width, dtype=self.dtype)

    def __call__(self, x, modulation, text: KV, attend, memory, layer):
        """x: (b, n, c); modulation: (b, t, 6, c), t divides n; text: keys (b, m, k, d).

        Returns x and the memory. Norms, modulation and the sums are computed in float32.
        """
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = (
            repeat(m, "b t c -> b (t n) c", n=x.shape[1] // m.shape[1])
            for m in jnp.unstack(modulation + self.modulation.astype(jnp.float32), axis=2)
        )
        norm = functools.partial(layer_norm, epsilon=self.config.epsilon)

        def add(x, y, gate=1.0):
            return (x.astype(jnp.float32) + y.astype(jnp.float32) * gate).astype(self.dtype)

        y = (norm(x) * (1 + scale) + shift).astype(self.dtype)
        q, (k, v) = self.self_attn.queries(y), self.self_attn.keys(y)
        out, memory = attend(q, k, v, memory, layer)
        x = add(x, self.self_attn.output(out), gate)
        q = self.cross_attn.queries(self.norm3(x))
        x = add(x, self.cross_attn.output(attention(q, *text, whole_keys=True)))
        y = (norm(x) * (1 + mlp_scale) + mlp_shift).astype(self.dtype)
        y = self.ffn_out(nn.gelu(self.ffn_in(y), approximate=True))
        return add(x, y, mlp_gate), memory

    def text_keys(self, words) -> KV:
        """What cross-attention needs of the text (b, m, c)."""
        return self.cross_attn.keys(words)


def _gathered(variables):
    """A layer's parameters as RULES has them, however they are kept (see core/fsdp.py)."""
    if jax.sharding.get_abstract_mesh().empty:
        return variables

    def whole(path, leaf):
        name = "blocks/" + jax.tree_util.keystr(path[1:], simple=True, separator="/")
        spec = next(spec for pattern, spec in RULES if re.fullmatch(pattern, name))
        return constrain(leaf, *spec[1:])  # the layers' axis is gone

    return jax.tree_util.tree_map_with_path(whole, variables)


class Head(nn.Module):
    """Tokens to patches of velocity, modulated by the timestep's features."""

    config: WanConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, time):
        """x: (b, n, c); time: (b, t, c); returns (b, n, patch size * channels)."""
        config = self.config
        scale = nn.initializers.normal(config.width**-0.5)
        modulation = self.param("modulation", scale, (2, config.width)).astype(jnp.float32)
        shift, scale = (
            repeat(time + m, "b t c -> b (t n) c", n=x.shape[1] // time.shape[1])
            for m in modulation
        )
        x = (layer_norm(x, config.epsilon) * (1 + scale) + shift).astype(self.dtype)
        outputs = config.channels * config.patch[0] * config.patch[1] * config.patch[2]
        return nn.Dense(outputs, name="out", dtype=self.dtype)(x)


class Dit(nn.Module):
    """Latents, timesteps and text to the flow's velocity (noise - clean)."""

    config: WanConfig
    dtype: jnp.dtype = jnp.float32  # of matmuls and of the tokens between blocks

    def setup(self):
        config = self.config
        self.patch_embedding = PatchEmbedding(config.width, config.patch, self.dtype)
        self.time_embedding = TimeEmbedding(config.width, config.frequencies)
        self.text_in = nn.Dense(config.width, dtype=self.dtype)
        self.text_out = nn.Dense(config.width, dtype=self.dtype)
        gathered = nn.map_variables(
            Block,
            "params",
            _gathered,
            init=self.is_initializing(),
            methods=("__call__", "text_keys"),
        )
        self.blocks = gathered(config, self.dtype)
        self.head = Head(config, self.dtype)

    def __call__(self, x, timesteps, text, attend=None, memory=None):
        """One evaluation.

        Args:
          x: (b, t, h, w, c) latents.
          timesteps: (b, t) in [0, 1000], one per frame, or (b, 1) for all frames.
          text: (b, m, text_width) embeddings of at most text_length tokens, or what
            `text_keys` has made of them.
          attend: what the layers' queries look at; None is all frames, counted from 0.
          memory: pytree that goes through `attend` layer by layer, such as a cache.
        Returns:
          velocity (b, t, h, w, c) in float32, and the memory.
        """
        config = self.config
        grid = config.grid(*x.shape[1:4])
        if attend is None:
            attend = attend_all(grid_rope(config.head_width, jnp.arange(grid[0]), *grid[1:]))
        time, modulation = self.time_embedding(timesteps)
        ready = isinstance(text, KV)
        words = None if ready else self._text(text)

        def body(block, carry, inputs):
            layer, keys = inputs
            x, memory = carry
            keys = block.text_keys(words) if keys is None else keys
            x, memory = block(x, modulation, keys, attend, memory, layer)
            return (constrain(x, "data", SEQUENCE, None), memory), None

        if config.remat:
            body = nn.remat(body, prevent_cse=False)
        x = constrain(self.patch_embedding(x), "data", SEQUENCE, None)
        inputs = (jnp.arange(config.depth), text if ready else None)
        (x, memory), _ = self._scan(body)(self.blocks, (x, memory), inputs)
        return unpatchify(self.head(x, time), grid, config.patch).astype(jnp.float32), memory

    def text_keys(self, text) -> KV:
        """Every layer's keys and values of a prompt (l, b, m, k, d), the same for all frames."""
        words = self._text(text)

        def body(block, carry, _):
            return carry, block.text_keys(words)

        return self._scan(body)(self.blocks, None, None)[1]

    def _text(self, text):
        """Rows missing up to text_length are zero; they are attended to, as in training."""
        missing = self.config.text_length - text.shape[1]
        if missing < 0:
            raise ValueError(
                f"{text.shape[1]} text tokens are more than text_length={self.config.text_length}"
            )
        text = jnp.pad(text, ((0, 0), (0, missing), (0, 0))).astype(self.dtype)
        return self.text_out(nn.gelu(self.text_in(text), approximate=True))

    def _scan(self, body):
        return nn.scan(
            body,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.config.depth,
        )


@functools.partial(jax.jit, static_argnums=0)
def initial_parameters(config: WanConfig, key) -> dict:
    """Fresh float32 parameters."""
    p, q, r = config.patch
    x = jnp.zeros((1, p, q, r, config.channels))
    text = jnp.zeros((1, 1, config.text_width))
    return Dit(config).init(key, x, jnp.zeros((1, 1)), text)["params"]


def abstract_parameters(config: WanConfig) -> dict:
    """Shapes and dtypes of the parameters, without computing them; under any mesh."""
    nowhere = jax.sharding.AbstractMesh((), ())  # the example's one token cannot be split
    with jax.sharding.use_abstract_mesh(nowhere):
        return jax.eval_shape(lambda: initial_parameters(config, jax.random.key(0)))
