"""The sink-and-window KV cache of LongLive, and attention through it.

The cache has one slot per latent frame. The first slots are the sink: they keep the first frames
of the video. The others are a ring: a new frame takes the slot of the oldest, so that nothing is
ever moved. Attention does not care for the order of keys, as their positions are in their
rotation; slots are filled from the front, so that those in use are a prefix.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxvid.core.attention import attention
from jaxvid.core.mesh import constrain
from jaxvid.core.rope import MAX_FRAMES, grid_rope, rotate
from jaxvid.wan.dit import KV, Attend, Dit, WanConfig


@dataclasses.dataclass(frozen=True)
class Window:
    """Which frames a cache keeps; sizes in latent frames."""

    frames: int = 12  # slots, the sink among them
    sink: int = 3
    relative: bool = False  # positions count slots instead of frames: videos of any length
    attend_empty_sink: bool = False  # a fault of upstream: unwritten sink slots count as zero keys

    def __post_init__(self):
        if self.sink < 0 or self.frames <= self.sink:
            raise ValueError(
                f"a window of {self.frames} frames has no room beside its sink of {self.sink}"
            )
        if self.relative and self.frames > MAX_FRAMES:
            raise ValueError(f"a window of {self.frames} frames: at most {MAX_FRAMES} can be told")

    @property
    def ring(self) -> int:
        return self.frames - self.sink

    def slots(self, frames):
        """The slot of each frame position (any integer array)."""
        return jnp.where(frames < self.sink, frames, self.sink + (frames - self.sink) % self.ring)

    def n_valid(self, end):
        """How many slots are in use once `end` frames are known."""
        valid = jnp.minimum(end, self.frames)
        return jnp.maximum(valid, self.sink) if self.attend_empty_sink else valid

    def positions(self, frames, end):
        """Rotary positions of the queries and of all slots.

        Relative positions number the slots in the order of time: sink first, the newest last.

        Args:
          frames: (t,) which frames of the video ask.
          end: () number of frames known, those that ask included.
        Returns:
          (t,) and (self.frames,), the latter only for relative positions (else None).
        """
        if not self.relative:
            return frames, None
        gone = jnp.maximum(end - self.frames, 0)
        asking = jnp.where(frames < self.sink, frames, frames - gone)
        slots = jnp.arange(self.frames)
        order = self.sink + (slots - self.sink - gone) % self.ring
        return asking, jnp.where(slots < self.sink, slots, order)


def empty_cache(config: WanConfig, window: Window, batch: int, tokens: int, dtype) -> KV:
    """Keys and values (l, b, slots * tokens, k, d); `tokens` are those of a frame."""
    shape = (config.depth, batch, window.frames * tokens, config.heads, config.head_width)
    return KV(_split(jnp.zeros(shape, dtype)), _split(jnp.zeros(shape, dtype)))


def _split(x):
    """A cache is split over requests and heads; devices that share tokens each hold it whole."""
    return constrain(x, None, "data", None, "tensor", None)


def _gathered(new: KV) -> KV:
    """Keys and values of a call, all tokens on each device as in the cache.

    Gathered in one piece: the frames they are cut into end in the middle of a device's tokens.
    """
    return KV(*(constrain(a, "data", None, "tensor", None) for a in new))


def write(cache: KV, layer, new: KV, slots, skip: int = 0) -> KV:
    """Puts the keys and values of some frames into their slots of one layer.

    Args:
      cache: (l, b, m, k, d), updated in place if the caller gives it up.
      layer: () index.
      new: (b, t * tokens, k, d).
      slots: (t,) where each frame goes.
      skip: the first frames, which are left out.
    """
    frames = slots.shape[0]
    tokens = new.k.shape[1] // frames
    new = _gathered(new)

    def put(array, values):
        for frame in range(skip, frames):
            part = values[:, frame * tokens : (frame + 1) * tokens].astype(array.dtype)
            at = (layer, 0, slots[frame] * tokens, 0, 0)
            array = jax.lax.dynamic_update_slice(array, part[None], at)
        return _split(array)

    return KV(*map(put, cache, new))


def attend_cached(
    window: Window,
    grid,
    head_width: int,
    frames,
    end,
    skip: int = 0,
    repin: bool = False,
    frozen: KV | None = None,
) -> Attend:
    """Attention of some frames to the cache, which takes their keys and values first.

    There is no mask: all frames of the call see each other and every slot in use.

    Args:
      grid: frames of the call, rows and columns of tokens.
      frames: (t,) which frames of the video the call is about.
      end: () number of frames known after the call.
      skip: the first frames of the call, which ask but are not kept: the slots stay as they are.
      repin: the first frames of the call become the sink, wherever in the video they are.
      frozen: a cache to look at in place of the memory, and to leave as it is. Gradients then
        reach the call's own keys only, and nothing of it is stored for them layer by layer.
    """
    count, height, width = grid
    slots = window.slots(frames)
    if repin:
        slots = jnp.where(jnp.arange(count) < window.sink, jnp.arange(count), slots)
    n_valid = window.n_valid(end) * height * width
    asking, kept = window.positions(frames, end)
    rope = grid_rope(head_width, asking, height, width)
    slot_rope = None if kept is None else grid_rope(head_width, kept, height, width)

    def attend(q, k, v, memory, layer):
        q = rotate(q, rope)
        new = KV(k if window.relative else rotate(k, rope), v)
        if frozen is None:
            memory = write(memory, layer, new, slots, skip)
            keys, values = _layer(memory, layer)
        else:
            one = KV(*(a[None] for a in _layer(frozen, layer)))
            keys, values = _layer(write(one, 0, new, slots, skip), 0)
        keys = rotate(keys, slot_rope) if window.relative else keys
        keys, values = keys.astype(q.dtype), values.astype(q.dtype)
        return attention(q, keys, values, n_valid=n_valid, whole_keys=True), memory

    return attend


def _layer(cache: KV, layer) -> KV:
    return KV(*(jax.lax.dynamic_index_in_dim(a, layer, keepdims=False) for a in cache))


@dataclasses.dataclass(frozen=True)
class CausalWan:
    """The network as the rollout wants it: functions of parameters, latents and a cache."""

    config: WanConfig
    window: Window
    dtype: jnp.dtype = jnp.float32

    def text_keys(self, params, text) -> KV:
        """What all layers need of a prompt: (b, m, text_width) to (l, b, m, k, d)."""
        return Dit(self.config, self.dtype).apply({"params": params}, text, method="text_keys")

    def empty_cache(self, batch: int, height: int, width: int) -> KV:
        """A cache for latents of this size."""
        _, rows, columns = self.config.grid(self.config.patch[0], height, width)
        return empty_cache(self.config, self.window, batch, rows * columns, self.dtype)

    def forward(self, params, x, timestep, text, cache: KV, frames, end, **slots):
        """One pass over latents x (b, t, h, w, c), timestep () or (b, t).

        text: what `text_keys` has made of it, or embeddings.
        frames, end, slots: see `attend_cached`.

        Returns the velocity, float32 like x, and the cache.
        """
        grid = self.config.grid(*x.shape[1:4])
        attend = attend_cached(self.window, grid, self.config.head_width, frames, end, **slots)
        timesteps = jnp.asarray(timestep, jnp.float32)
        if not timesteps.ndim:
            timesteps = jnp.full((x.shape[0], 1), timesteps)
        return Dit(self.config, self.dtype).apply(
            {"params": params}, x, timesteps, text, attend, cache
        )
