"""Blocks of the Cosmos transformer (cosmos-transfer2.5, `minimal_v4_dit.py`).

Tokens keep their views apart, (b, v, n, c), so that text and modulation belong to a view, and are
split over devices by view and within a view. Numbers beyond `Scene.sizes` are padding.
"""

import functools
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from jaxvid.core import noise
from jaxvid.core.attention import batch_attention, view_attention
from jaxvid.core.mesh import constrain
from jaxvid.core.rope import Rope, rotate_halves
from jaxvid.wan.embeddings import layer_norm
from jaxvid.wan.lora import Dense

EPSILON = 1e-6  # of all norms


class Scene(NamedTuple):
    """What all blocks of one evaluation share."""

    time: jax.Array  # (b, c) normalised sinusoid of the timestep, float32
    shared: jax.Array  # (b, 3 * c) what is added to every modulation, float32
    text: jax.Array  # (b, v, m, c') the views' words
    rope: Rope  # of the n tokens of one view
    sizes: tuple[int, int]  # views and tokens of a view, without padding
    views: jax.Array | None = None  # (v, 9 * c) what a view adds to the three modulations, float32
    sees: jax.Array | None = None  # (v, v) bool, which views a view's cross-view attention reads
    frames: int = 1  # t; n is t * h * w


def kernel_init(key, shape, dtype=jnp.float32):
    """Truncated normal of deviation 1/sqrt(inputs), as upstream initialises."""
    return noise.truncated_normal(key, shape, shape[-2] ** -0.5, dtype)


dense = functools.partial(Dense, use_bias=False, kernel_init=kernel_init)
zero_dense = functools.partial(Dense, use_bias=False, kernel_init=nn.initializers.zeros)


class Attention(nn.Module):
    """The projections of an attention layer; queries and keys are RMS-normalised per head."""

    width: int
    heads: int
    dtype: jnp.dtype
    output_init: nn.initializers.Initializer = kernel_init

    def setup(self):
        make = functools.partial(dense, self.width, dtype=self.dtype)
        norm = functools.partial(nn.RMSNorm, epsilon=EPSILON, dtype=self.dtype)
        self.q, self.k, self.v = make(), make(), make()
        self.o = make(kernel_init=self.output_init)
        self.norm_q, self.norm_k = norm(), norm()

    def __call__(self, x, source, attend):
        """x: (b, v, n, c) looks at source (b, v, m, c'), through attend(q, k, v)."""
        q, k, v = (
            rearrange(project(y), "b v n (k d) -> b v n k d", k=self.heads)
            for project, y in ((self.q, x), (self.k, source), (self.v, source))
        )
        out = attend(self.norm_q(q), self.norm_k(k), v)
        return self.o(rearrange(out, "b v n k d -> b v n (k d)"))


class Modulation(nn.Module):
    """The timestep's features to shift, scale and perhaps gate, through few numbers.

    In float32: it is one row per video, and acts on every token.
    """

    width: int
    rank: int
    parts: int

    @nn.compact
    def __call__(self, time, shared, views=None):
        """time: (b, c); shared: (b, parts * c); views: (v, parts * c); returns (b, v, 1, c) each,
        v = 1 where `views` is None."""
        x = dense(self.rank, dtype=jnp.float32, name="down")(nn.silu(time))
        x = zero_dense(self.parts * self.width, dtype=jnp.float32, name="up")(x) + shared
        x = constrain(x, "data")  # whole, however the matrix is split
        x = x[:, None] if views is None else x[:, None] + views
        return jnp.split(x[:, :, None], self.parts, axis=-1)


class Block(nn.Module):
    """Self-attention over all views, attention to the view's text, feed-forward.

    In the cross-view variant the first sees its own view only, and another attention after it
    reads other views' tokens of the same frame.
    """

    width: int
    heads: int
    mlp: int
    rank: int
    cross_view: bool
    dtype: jnp.dtype

    def setup(self):
        attention = functools.partial(Attention, self.width, self.heads, self.dtype)
        self.self_attn, self.cross_attn = attention(), attention()
        if self.cross_view:
            self.cross_view_norm = nn.LayerNorm(EPSILON, dtype=self.dtype, use_fast_variance=False)
            self.cross_view_attn = attention(output_init=nn.initializers.zeros)
        self.mlp_in = dense(self.mlp, dtype=self.dtype)
        self.mlp_out = dense(self.width, dtype=self.dtype)
        self.modulate_self_attn, self.modulate_cross_attn, self.modulate_mlp = (
            Modulation(self.width, self.rank, 3) for _ in range(3)
        )

    def __call__(self, x, scene: Scene):
        """x: (b, v, n, c) in `dtype`; the same comes back."""
        views = [None] * 3 if scene.views is None else jnp.split(scene.views, 3, axis=-1)

        def branch(x, modulate, views, function):
            shift, scale, gate = (
                part.astype(self.dtype).astype(jnp.float32)  # rounded as upstream does
                for part in modulate(scene.time, scene.shared, views)
            )
            y = function((layer_norm(x, EPSILON) * (1 + scale) + shift).astype(self.dtype))
            return _add(x, y, gate)

        x = branch(x, self.modulate_self_attn, views[0], lambda y: self._look(y, scene))
        if self.cross_view:
            y = self.cross_view_norm(x)
            attend = functools.partial(_attend_views, scene=scene)
            x = _add(x, self.cross_view_attn(y, y, attend))
        x = branch(x, self.modulate_cross_attn, views[1], lambda y: self._read(y, scene))
        return branch(x, self.modulate_mlp, views[2], self._feed)

    def _look(self, y, scene: Scene):
        look: Literal["own", "all"] = "own" if self.cross_view else "all"

        def attend(q, k, v):
            q, k = rotate_halves(q, scene.rope), rotate_halves(k, scene.rope)
            return view_attention(q, k, v, look=look, sizes=scene.sizes)

        return self.self_attn(y, y, attend)

    def _read(self, y, scene: Scene):
        attend = functools.partial(view_attention, look="text", sizes=scene.sizes)
        return self.cross_attn(y, scene.text, attend)

    def _feed(self, y):
        return self.mlp_out(nn.gelu(self.mlp_in(y), approximate=False))


def _add(x, y, gate=1.0):
    return (x.astype(jnp.float32) + y.astype(jnp.float32) * gate).astype(x.dtype)


def _attend_views(q, k, v, scene: Scene):
    """Attention to the tokens of the same frame in the views that are seen, (b, v, n, k, d).

    A view that sees none of those present gets zeros.
    """
    views, tokens = scene.sizes
    pattern = "b v (t s) k d -> (b t) (v s) k d"
    frames = [rearrange(x[:, :views, :tokens], pattern, t=scene.frames) for x in (q, k, v)]
    size = tokens // scene.frames
    sees = scene.sees[:views, :views]
    mask = jnp.repeat(jnp.repeat(sees, size, axis=0), size, axis=1)[None, None]
    out = batch_attention(*frames, mask)
    out = rearrange(out, "(b t) (v s) k d -> b v (t s) k d", b=len(q), v=views)
    out = jnp.where(sees.any(1)[None, :, None, None, None], out, 0)
    padding = [(0, whole - there) for whole, there in zip(q.shape, out.shape, strict=True)]
    return jnp.pad(out, padding)


class ControlBlock(Block):
    """A block of the control branch: it also makes a hint for the block it belongs to."""

    def setup(self):
        super().setup()
        self.after = zero_dense(self.width, use_bias=True, dtype=self.dtype)

    def __call__(self, x, scene: Scene):
        """x: (b, v, n, c); returns what the next control block gets, and the hint."""
        x = super().__call__(x, scene)
        return x, self.after(x)
