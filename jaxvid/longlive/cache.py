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

    def positions(self, start, frames: int, end):
        """Rotary positions of the queries and of all slots.

        Relative positions number the slots in the order of time: sink first, the newest last.

        Args:
          start: () position of the first of `frames` frames that ask.
          end: () number of frames known, those that ask included.
        Returns:
          (frames,) and (self.frames,), the latter only for relative positions (else None).
        """
        asking = start + jnp.arange(frames)
        if not self.relative:
            return asking, None
        gone = jnp.maximum(end - self.frames, 0)
        slots = jnp.arange(self.frames)
        order = self.sink + (slots - self.sink - gone) % self.ring
        return asking - gone, jnp.where(slots < self.sink, slots, order)


def empty_cache(config: WanConfig, window: Window, batch: int, tokens: int, dtype) -> KV:
    """Keys and values (l, b, slots * tokens, k, d); `tokens` are those of a frame."""
    shape = (config.depth, batch, window.frames * tokens, config.heads, config.head_width)
    return KV(_split(jnp.zeros(shape, dtype)), _split(jnp.zeros(shape, dtype)))


def _split(x):
    """A cache is split over requests and heads; devices that share tokens each hold it whole."""
    return constrain(x, None, "data", None, "tensor", None)


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

    def put(array, values):
        for frame in range(skip, frames):
            part = values[:, frame * tokens : (frame + 1) * tokens].astype(array.dtype)
            at = (layer, 0, slots[frame] * tokens, 0, 0)
            array = jax.lax.dynamic_update_slice(array, part[None], at)
        return _split(array)

    return KV(*map(put, cache, new))


def attend_cached(
    window: Window, grid, head_width: int, start, end, skip: int = 0, repin: bool = False
) -> Attend:
    """Attention of new frames to the cache, which takes their keys and values first.

    There is no mask: all frames of the call see each other and every slot in use.

    Args:
      grid: frames of the call, rows and columns of tokens.
      start: () position of the first frame of the call.
      end: () number of frames known after the call.
      skip: the first frames of the call, which ask but are not kept: the slots stay as they are.
      repin: the first frames of the call become the sink, wherever in the video they are.
    """
    frames, height, width = grid
    slots = window.slots(start + jnp.arange(frames))
    if repin:
        slots = jnp.where(jnp.arange(frames) < window.sink, jnp.arange(frames), slots)
    n_valid = window.n_valid(end) * height * width
    asking, kept = window.positions(start, frames, end)
    rope = grid_rope(head_width, asking, height, width)
    slot_rope = None if kept is None else grid_rope(head_width, kept, height, width)

    def attend(q, k, v, cache, layer):
        q = rotate(q, rope)
        k = k if window.relative else rotate(k, rope)
        cache = write(cache, layer, KV(k, v), slots, skip)
        keys, values = (jax.lax.dynamic_index_in_dim(a, layer, keepdims=False) for a in cache)
        keys = rotate(keys, slot_rope) if window.relative else keys
        out = attention(q, keys.astype(q.dtype), values.astype(q.dtype), n_valid=n_valid,
                        whole_keys=True)  # fmt: skip
        return out, cache

    return attend


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

    def forward(self, params, x, timestep, text: KV, cache: KV, start, end, **slots):
        """One pass over latents x (b, t, h, w, c), timestep () or (b, t).

        start, end, slots: see `attend_cached`.

        Returns the velocity, float32 like x, and the cache.
        """
        grid = self.config.grid(*x.shape[1:4])
        attend = attend_cached(self.window, grid, self.config.head_width, start, end, **slots)
        timesteps = jnp.asarray(timestep, jnp.float32)
        if not timesteps.ndim:
            timesteps = jnp.full((x.shape[0], 1), timesteps)
        return Dit(self.config, self.dtype).apply(
            {"params": params}, x, timesteps, text, attend, cache
        )
