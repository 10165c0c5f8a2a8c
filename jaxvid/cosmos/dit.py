"""The Cosmos-Transfer2.5 multiview network with its control branch (`multiview_dit_control.py`).

Every token looks at every token of all views; views differ by learned channels and by their text.
The cross-view variant (`multiview_cross_dit_control.py`) looks at its own view, and then at other
views' tokens of the same frame; there a view is known by what it adds to the modulation.
"""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.sharding import PartitionSpec as P

from jaxvid.core.attention import SEQUENCE
from jaxvid.core.mesh import axis_size, constrain
from jaxvid.core.rope import axis_pairs, stretched_rope
from jaxvid.cosmos.blocks import (
    EPSILON,
    Block,
    ControlBlock,
    Modulation,
    Scene,
    dense,
    zero_dense,
)
from jaxvid.wan.embeddings import layer_norm, sinusoid

HINT_LAYERS = 7
EVERYONE = ("data", *SEQUENCE)
CONTROL = ("control_embedder", "hint", "control_in", "control_blocks")  # the control branch

RULES = (  # whole on every device, but for `tensor`
    (r"(control_)?blocks/\w+_attn/[qkv]/kernel", P(None, None, "tensor")),
    (r"(control_)?blocks/(\w+_attn/o|mlp_out)/kernel", P(None, "tensor", None)),
    (r"(control_)?blocks/mlp_in/kernel", P(None, None, "tensor")),
    (r".*", P()),
)
FSDP_RULES = (  # for training: matrices in equal parts on all devices, gathered when needed
    (r"(control_)?blocks/.*(attn|mlp)(/.)?/(o|up)/kernel", P(None, "tensor", EVERYONE)),
    (r"(control_)?blocks/mlp_out/kernel", P(None, "tensor", EVERYONE)),
    (r"(control_)?blocks/.*/kernel", P(None, EVERYONE, "tensor")),
    (r"(x|control)_embedder/kernel", P(None, EVERYONE)),
    (r".*/kernel", P(EVERYONE)),
    (r".*", P()),
)


@dataclasses.dataclass(frozen=True)
class DitConfig:
    """Shape of the network; the defaults are the released 2B auto/multiview one."""

    depth: int = 28
    width: int = 2048
    heads: int = 16
    mlp: int = 8192
    channels: int = 16  # of the latents
    patch: int = 2  # latent rows and columns of a token
    modulation_rank: int = 256
    text_in: int = 100352  # width of the embeddings; 0: they come as the blocks want them
    text_width: int = 1024  # of the words that blocks attend to
    views: int = 7  # cameras that have an id, 0 to views - 1
    view_channels: int = 7  # learned channels of a view; 0: none
    view_modulation: bool = False  # cross-view variant: views add to shift, scale and gate
    neighbours: tuple[tuple[int, ...], ...] = ()  # cross-view variant: ids that each id looks at
    stretch: tuple[float, ...] = (1 / 3, 3.0, 3.0)  # of RoPE along frames, rows, columns
    control_every: int = 7  # control blocks belong to every so manieth block,
    control_layers: Literal["spaced", "first_n"] = "spaced"  # or to as many from the first on
    modalities: int = 8  # widths of a control latent that the control embedder has room for
    hint: bool = True  # layers between the control embedder and the control blocks
    timestep_scale: float = 0.001
    remat: bool = False  # recompute each block's inner values for the gradient
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of matrix products and tokens

    def __post_init__(self):
        if self.width % self.heads or self.head_width % 2 or axis_pairs(self.head_width)[1] < 2:
            raise ValueError(
                f"width={self.width} over heads={self.heads} is no even head width of 12 or more"
            )
        if not self.hinted:
            raise ValueError(
                f"control_every={self.control_every} leaves none of {self.depth} blocks a hint: "
                "use a number from 1 to depth"
            )
        if len(self.stretch) != 3 or min(self.stretch) <= 0:
            raise ValueError(f"stretch={self.stretch} must be three positive numbers")
        if self.neighbours and len(self.neighbours) != self.views:
            raise ValueError(
                f"neighbours are given for {len(self.neighbours)} of {self.views} views: "
                "give one list of ids for each view"
            )
        if any(not 0 <= i < self.views for ids in self.neighbours for i in ids):
            raise ValueError(f"neighbours={self.neighbours}: ids go from 0 to {self.views - 1}")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def cross_view(self) -> bool:
        """Whether attention over views is apart from attention within a view."""
        return bool(self.neighbours)

    @property
    def hinted(self) -> tuple[int, ...]:
        """The blocks after which a hint is added, one for each control block."""
        every = self.control_every
        if every < 1:
            return ()
        if self.control_layers == "spaced":
            return tuple(range(0, self.depth, every))
        return tuple(range(self.depth // every))

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Tokens per axis of a view's latents; raises ValueError if patches do not fit."""
        if min(frames, height, width) < 1 or height % self.patch or width % self.patch:
            raise ValueError(
                f"latents of {frames} frames {height}x{width} are no multiple of the patch "
                f"{self.patch}: frames of video need sides that are multiples of {8 * self.patch}"
            )
        return frames, height // self.patch, width // self.patch


def tiny(**changes) -> DitConfig:
    """A network of the released make with few numbers, for tests and tiny runs."""
    small = DitConfig(
        depth=4, width=32, heads=2, mlp=64, channels=4, modulation_rank=8, text_in=24,
        text_width=16, control_every=2, modalities=2, dtype="float32",
    )  # fmt: skip
    return dataclasses.replace(small, **changes)


class Hint(nn.Module):
    """Layers between the control tokens and the control branch; SiLU after each, the last too."""

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        for i in range(HINT_LAYERS):
            layer = dense(self.width, use_bias=True, dtype=self.dtype, name=f"layer_{2 * i}")
            x = nn.silu(layer(x))
        return x


class Time(nn.Module):
    """Timestep to the features of all modulations, float32.

    Blocks modulate by the sinusoid itself, normalised; its network only adds to the result.
    """

    width: int

    @nn.compact
    def __call__(self, timestep):
        """timestep: (b,), scaled; returns (b, width) and (b, 3 * width)."""
        waves = sinusoid(timestep, self.width)
        inner = nn.silu(dense(self.width, dtype=jnp.float32, name="in")(waves))
        shared = dense(3 * self.width, dtype=jnp.float32, name="out")(inner)
        norm = nn.RMSNorm(epsilon=EPSILON, dtype=jnp.float32, name="norm")
        return norm(waves), shared


class Final(nn.Module):
    """Tokens to patches of velocity, all in float32."""

    width: int
    rank: int
    outputs: int

    @nn.compact
    def __call__(self, x, time, shared):
        """x: (b, v, n, c); time: (b, c); shared: (b, 3 * c), of which 2 * c count."""
        modulate = Modulation(self.width, self.rank, 2, name="modulate")
        shift, scale = modulate(time, shared[:, : 2 * self.width])
        x = layer_norm(x, EPSILON) * (1 + scale) + shift
        return dense(self.outputs, dtype=jnp.float32, name="out")(x)


class Dit(nn.Module):
    """Latents of several views, timestep, text and control to the flow's velocity."""

    config: DitConfig

    def setup(self):
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        width, rank = config.width, config.modulation_rank
        self.x_embedder = dense(width, dtype=dtype)
        self.control_embedder = dense(width, dtype=dtype)
        if config.text_in:
            self.text = nn.Dense(config.text_width, dtype=dtype)
        if config.view_channels:
            self.view_embedding = nn.Embed(config.views, config.view_channels)
        if config.view_modulation:
            self.view_rows = nn.Embed(config.views, width)
            self.view_modulation = nn.Dense(9 * width, dtype=jnp.float32)
        if config.hint:
            self.hint = Hint(width, dtype)
        self.time = Time(width)
        self.control_in = zero_dense(width, use_bias=True, dtype=dtype)
        shape = (width, config.heads, config.mlp, rank, config.cross_view, dtype)
        self.control_blocks = ControlBlock(*shape)
        self.blocks = Block(*shape)
        self.final = Final(width, rank, config.patch**2 * config.channels)

    def text_context(self, text):
        """Embeddings (..., m, text_in) to the words that the blocks attend to (..., m, text_width).

        Rows of padding are words like others.
        """
        if not self.config.text_in:
            return text.astype(self.config.dtype)
        return nn.gelu(self.text(text), approximate=False)

    def __call__(self, latents, timestep, context, control, given, view_ids, control_scale,
                 padding=None):  # fmt: skip
        """One evaluation; see `model.velocity`, whose arguments these are."""
        config = self.config
        b, v, *size, _ = latents.shape
        grid = config.grid(*size)
        sizes = (v, int(np.prod(grid)))
        time, shared = self.time(timestep.astype(jnp.float32) * config.timestep_scale)
        extra = self._extra(given, view_ids, padding, (b, v, *size))
        scene = Scene(
            time=time,
            shared=shared,
            text=_padded(context.astype(config.dtype), tokens=False),
            rope=_padded_rope(stretched_rope(config.head_width, grid, config.stretch)),
            sizes=sizes,
            views=self._view_modulation(view_ids),
            sees=self._sees(view_ids),
            frames=grid[0],
        )
        x = self._tokens(self.x_embedder, latents, extra)
        hints = self._hints(x, self._tokens(self.control_embedder, self._control(control), extra),
                            scene)  # fmt: skip
        x = self._base(x, hints, control_scale, scene)
        patches = self.final(x, time, shared)[:, : sizes[0], : sizes[1]]
        p, (t, h, w) = config.patch, grid
        pattern = "b v (t h w) (m n c) -> b v t (h m) (w n) c"
        return rearrange(patches, pattern, t=t, h=h, w=w, m=p, n=p)

    def _hints(self, x, control, scene: Scene):
        """The control branch on the tokens: hints (l, b, v, n, c)."""
        control = self.hint(control) if self.config.hint else control

        def body(block, c, _):
            c, hint = block(c, scene)
            return constrain(c, "data", *SEQUENCE, None), hint

        c = self.control_in(control) + x
        return self._scan(body, len(self.config.hinted))(self.control_blocks, c, None)[1]

    def _base(self, x, hints, scale, scene: Scene):
        """All blocks, hints added after those that have one."""
        config = self.config
        which, strength = np.zeros(config.depth, np.int32), np.zeros(config.depth)
        which[list(config.hinted)] = np.arange(len(config.hinted))
        strength[list(config.hinted)] = 1
        scale = jnp.asarray(scale, config.dtype)  # rounded like the tokens, as upstream does

        def body(block, x, inputs):
            index, strength = inputs
            hint = jax.lax.dynamic_index_in_dim(hints, index, keepdims=False)
            x = block(x, scene) + strength * hint
            return constrain(x, "data", *SEQUENCE, None), None

        inputs = (jnp.asarray(which), scale * jnp.asarray(strength, config.dtype))
        return self._scan(body, config.depth)(self.blocks, x, inputs)[0]

    def _scan(self, body, length: int):
        body = nn.remat(body, prevent_cse=False) if self.config.remat else body
        return nn.scan(
            body, variable_axes={"params": 0}, split_rngs={"params": True}, length=length
        )

    def _tokens(self, embedder, channels, extra):
        """(b, v, t, h, w, c) to padded tokens (b, v, n, c); a patch goes channel by channel."""
        x = jnp.concatenate([channels.astype(self.config.dtype), extra], axis=-1)
        pattern = "b v t (h m) (w n) c -> b v (t h w) (c m n)"
        patches = _padded(rearrange(x, pattern, m=self.config.patch, n=self.config.patch))
        return constrain(embedder(patches), "data", *SEQUENCE, None)

    def _extra(self, given, view_ids, padding, shape):
        """Channels that latents and control share: what is given, padding, the view."""
        config = self.config
        parts = [jnp.broadcast_to(given[..., None, None, None], (*shape, 1))]
        parts.append(jnp.broadcast_to(_at_latents(padding, shape)[:, None, None, ..., None],
                                      (*shape, 1)))  # fmt: skip
        if config.view_channels:
            rows = self.view_embedding(view_ids)[:, None, None, None]
            parts.append(jnp.broadcast_to(rows, (*shape, config.view_channels)))
        return jnp.concatenate([part.astype(config.dtype) for part in parts], axis=-1)

    def _control(self, control):
        """Zeros for the modalities that are not there."""
        room = (self.config.channels + self.config.view_channels) * self.config.modalities
        missing = room - control.shape[-1]
        if missing < 0:
            raise ValueError(
                f"control latents have {control.shape[-1]} channels, there is room for {room}"
            )
        return jnp.pad(control, ((0, 0),) * 5 + ((0, missing),))

    def _view_modulation(self, view_ids):
        """(v, 9 * c) shift, scale and gate of the three branches that views add, if they do."""
        if not self.config.view_modulation:
            return None
        rows = self.view_modulation(self.view_rows(view_ids))
        missing = -len(view_ids) % axis_size("view")
        return jnp.pad(rows, ((0, missing), (0, 0)))

    def _sees(self, view_ids):
        """(v, v) which of the views at hand each looks at."""
        if not self.config.cross_view:
            return None
        table = np.zeros((self.config.views,) * 2, bool)
        for i, ids in enumerate(self.config.neighbours):
            table[i, list(ids)] = True
        return jnp.asarray(table)[view_ids][:, view_ids]


def _padded(x, tokens: bool = True):
    """(b, v, n, c) with zeros, so that `view` divides v and `seq` divides n."""
    missing = [-x.shape[1] % axis_size("view"), -x.shape[2] % axis_size("seq") if tokens else 0]
    return jnp.pad(x, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))


def _padded_rope(rope):
    missing = -rope.cos.shape[0] % axis_size("seq")
    return jax.tree.map(lambda a: jnp.pad(a, ((0, missing), (0, 0))), rope)


def _at_latents(padding, shape):
    """The padding mask (b, H, W) of pixels at each latent pixel (b, h, w), the nearest one."""
    b, _, _, h, w = shape
    if padding is None:
        return jnp.zeros((b, h, w))
    rows, columns = (np.arange(n) * whole // n for n, whole in zip((h, w), padding.shape[1:],
                                                                    strict=True))  # fmt: skip
    return padding[:, rows][:, :, columns]
