"""Few-step generation of long videos, block by block (LongLive v1.0, Self-Forcing).

A block of frames is denoised in a few passes, each of which overwrites the block's slots of the
cache; one more pass over the clean block leaves its final keys there. All functions here are pure:
what changes is `State`, and the network enters as an object with `text_keys`, `empty_cache` and
`forward` (see `cache.CausalWan`).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core import flow
from jaxvid.core.noise import normal
from jaxvid.core.rope import MAX_FRAMES
from jaxvid.longlive.cache import Window
from jaxvid.wan.dit import KV


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How videos are made; frames are latent frames, the defaults are LongLive's."""

    block: int = 3  # frames denoised together
    window: int = 12  # frames a block can see, sink and itself included; -1: all of the video
    sink: int = 3  # first frames that are never forgotten
    relative_rope: bool = False  # positions in the window instead of the video: any length
    steps: tuple[int, ...] = (1000, 750, 500, 250)
    warp_steps: bool = True  # steps count entries of the shifted table, not timesteps
    shift: float = 5.0
    context_timestep: float = 0.0  # of passes over clean frames; no noise is added to them
    global_sink: bool = True  # the sink outlives prompt switches; else it is taken anew
    conditioning: Literal["auto", "single", "blocks"] = "auto"  # passes over a given video
    zero_sink: bool = False  # fault of upstream's switch pipeline: zero keys as sink after a switch
    noisy_sink: bool = False  # fault of upstream: a sink beyond the first block keeps noise
    blank_tail: bool = False  # fault of upstream: frames beyond the last whole block stay zero

    def __post_init__(self):
        if self.block < 1:
            raise ValueError(f"block={self.block} has to be at least 1 frame")
        if self.window != -1 and self.window < self.block + self.sink:
            raise ValueError(
                f"window={self.window} is smaller than block={self.block} plus sink={self.sink}: "
                f"use at least {self.block + self.sink}, or -1 for the whole video"
            )
        if not 0 <= self.context_timestep <= flow.STEPS:
            raise ValueError(f"context_timestep={self.context_timestep} is not in 0 to 1000")
        if self.zero_sink and self.global_sink:
            raise ValueError("zero_sink does nothing while global_sink=True: set global_sink=False")
        flow.few_steps(self.steps, self.shift, self.warp_steps)

    def check_clip(self, frames: int) -> None:
        """Raises ValueError if a clip of this many frames cannot be taken as `conditioning` says.

        Upstream's single pass fails for more than a window.
        """
        if self.conditioning == "single" and -1 != self.window < frames:
            raise ValueError(
                f"{frames} conditioning latents do not fit a window of {self.window} in a single "
                "pass: use conditioning='blocks' or 'auto'"
            )

    def cache_window(self, frames: int) -> Window:
        """The cache of a video of this many frames, those that are made only to be cut included.

        Raises:
          ValueError: the video is longer than absolute positions reach.
        """
        if not self.relative_rope and frames > MAX_FRAMES:
            raise ValueError(
                f"{frames} latent frames are more than the {MAX_FRAMES} that absolute positions "
                "reach: use relative_rope=True"
            )
        size = frames if self.window == -1 else self.window
        return Window(size, self.sink, self.relative_rope, attend_empty_sink=self.noisy_sink)


class State(NamedTuple):
    """All that a video needs to go on; a pytree that a checkpoint can hold."""

    cache: KV
    text: KV  # keys and values of the prompt in force
    recent: jax.Array  # (b, reach, h, w, c) the newest clean frames, the last one last
    frame: jax.Array  # () int32, frames known so far


class Block(NamedTuple):
    """What a rollout gives out."""

    latents: jax.Array  # (b, t, h, w, c)
    state: State  # used up by the next block: copy it first to keep it


def begin(network, params, text, shape: Sequence[int], reach: int = 0) -> State:
    """The state before the first frame.

    Args:
      text: (b or 1, m, text_width) embeddings.
      shape: (b, h, w, c) of one frame of latents.
      reach: frames that a prompt switch can look back to, if more than the window. As long as
        the first frame is among them, a switch renews the sink from the first frames.
    """
    batch, height, width, channels = shape
    recent = jnp.zeros((batch, max(network.window.frames, reach), height, width, channels))
    cache = network.empty_cache(batch, height, width)
    keys = text_keys(network, params, text, batch)
    return State(cache, keys, recent, jnp.zeros((), jnp.int32))


@functools.partial(jax.jit, static_argnames=("network", "batch"))
def text_keys(network, params, text, batch: int):
    """What the network keeps of a prompt; one prompt (1, m, text_width) serves all videos."""
    return network.text_keys(params, jnp.broadcast_to(text, (batch, *text.shape[1:])))


def remember(recent, latents):
    """The newest frames after these came in."""
    return jnp.concatenate([recent, latents], axis=1)[:, -recent.shape[1] :]


@functools.partial(
    jax.jit, static_argnames=("network", "config", "protected"), donate_argnames="state"
)
def advance(network, config: RolloutConfig, params, state: State, noise, protected: int = 0):
    """Makes the next block.

    Args:
      state: is used up.
      noise: (s, b, t, h, w, c) standard normal: what the block starts from, then what is added
        after each step but the last.
      protected: frames of the block whose slots all passes but the first leave alone (see
        `protected_frames`).
    Returns:
      The state and the clean latents (b, t, h, w, c).
    """
    levels = flow.few_steps(config.steps, config.shift, config.warp_steps)
    frames = state.frame + jnp.arange(noise.shape[2])
    end = state.frame + noise.shape[2]
    sigmas = jnp.append(levels.sigmas, 0.0)  # the last pass is over the clean block
    passes = (
        jnp.append(levels.timesteps, config.context_timestep),
        sigmas,
        jnp.append(sigmas[1:], 0.0),
        jnp.pad(noise[1:], ((0, 2), *[(0, 0)] * 5)),
    )

    def one_pass(skip, carry, inputs):
        x, cache = carry
        timestep, sigma, next_sigma, fresh = inputs
        velocity, cache = network.forward(
            params, x, timestep, state.text, cache, frames, end, skip=skip
        )
        return (flow.add_noise(flow.clean_of(x, velocity, sigma), fresh, next_sigma), cache), None

    carry, first = (noise[0], state.cache), 0
    if protected:
        carry, _ = one_pass(0, carry, jax.tree.map(lambda a: a[0], passes))
        first = 1
    rest = jax.tree.map(lambda a: a[first:], passes)
    (x, cache), _ = jax.lax.scan(functools.partial(one_pass, protected), carry, rest)
    return state._replace(cache=cache, recent=remember(state.recent, x), frame=end), x


@functools.partial(jax.jit, static_argnames=("network", "config"), donate_argnames="state")
def observe(network, config: RolloutConfig, params, state: State, latents) -> State:
    """Takes given clean frames (b, t, h, w, c) as the next ones, all of them in one pass."""
    frames = state.frame + jnp.arange(latents.shape[1])
    end = state.frame + latents.shape[1]
    cache = network.forward(
        params, latents, config.context_timestep, state.text, state.cache, frames, end
    )[1]
    return state._replace(cache=cache, recent=remember(state.recent, latents), frame=end)


@functools.partial(jax.jit, static_argnums=0, donate_argnames="state")
def set_text(network, params, state: State, text) -> State:
    """Changes the prompt of what follows; the cache stays as it is."""
    return state._replace(text=text_keys(network, params, text, state.recent.shape[0]))


def switch(network, config: RolloutConfig, params, state: State, text, frame: int) -> State:
    """Changes the prompt and computes the window's keys anew under it (KV-recache).

    Once the first frame is out of reach, the sink stays as it was (`global_sink`), or is taken
    anew from the oldest frames of the window.

    Args:
      state: is used up.
      text: (b or 1, m, text_width) embeddings.
      frame: state.frame as a Python integer.
    """
    if frame == 0:
        return set_text(network, params, state, text)
    window, reach = network.window, state.recent.shape[1]
    known = list(range(max(frame - window.frames, 0), frame))
    if window.frames < frame <= reach:
        known[: window.sink] = range(window.sink)
    slots = {}
    if frame > reach:
        keep_sink = config.global_sink or config.zero_sink
        slots = {"skip": window.sink} if keep_sink else {"repin": True}
    clear = frame > reach and config.zero_sink and not config.global_sink
    back = tuple(frame - i for i in known)
    return _recache(network, config, params, state, text, back, tuple(slots.items()), clear)


@functools.partial(
    jax.jit,
    static_argnames=("network", "config", "back", "slots", "clear"),
    donate_argnames="state",
)
def _recache(network, config, params, state, text, back, slots, clear: bool) -> State:
    """back: how far before the next frame each frame is that is computed anew."""
    keys = text_keys(network, params, text, state.recent.shape[0])
    cache = jax.tree.map(jnp.zeros_like, state.cache) if clear else state.cache
    back = np.asarray(back)
    latents = state.recent[:, state.recent.shape[1] - back]
    timestep, frames = config.context_timestep, state.frame - back
    cache = network.forward(
        params, latents, timestep, keys, cache, frames, state.frame, **dict(slots)
    )[1]
    return state._replace(cache=cache, text=keys)


def protected_frames(config: RolloutConfig, frame: int, frames: int) -> int:
    """Frames of a block that fall into the sink although it is not the first (`noisy_sink`)."""
    return min(max(config.sink - frame, 0), frames) if config.noisy_sink and frame else 0


def condition(network, config: RolloutConfig, params, state: State, latents) -> State:
    """Takes the frames of a given video (b, t, h, w, c) as the first ones of this one.

    One pass over all of them if the window holds them, else block by block as they would have
    been generated (`conditioning` chooses, see `check_clip`). A video shorter than the sink shares
    it with the first frames that are made.
    """
    frames, window = latents.shape[1], network.window.frames
    config.check_clip(frames)
    blocks = config.conditioning == "blocks" or frames > window
    step = config.block if blocks else frames
    for start in range(0, frames, step):
        state = observe(network, config, params, state, latents[:, start : start + step])
    return state


def generate(
    network,
    config: RolloutConfig,
    params,
    state: State,
    noise: Callable[[int], jax.Array],
    end: int | None = None,
    text_at: Callable[[int], jax.Array | None] | None = None,
) -> Iterator[Block]:
    """Makes blocks from `state` on, one at a time, until there are `end` frames.

    Args:
      state: is used up; from `begin`, `condition`, or of an earlier block.
      noise: the noise of the block that starts at a frame, see `advance`.
      end: frames of the whole video; a last block that is longer is cut. None goes on for ever.
      text_at: is asked before every block, with the frame it starts at, whether a new prompt
        begins there; None from it means no.
    """
    frame = int(state.frame)
    while end is None or frame < end:
        left = config.block if end is None else min(end - frame, config.block)
        if left < config.block and config.blank_tail:
            latents = jnp.zeros_like(state.recent[:, :left])
            yield Block(latents, state)
            return
        text = None if text_at is None else text_at(frame)
        if text is not None:
            state = switch(network, config, params, state, text, frame)
        protected = protected_frames(config, frame, config.block)
        state, latents = advance(network, config, params, state, noise(frame), protected)
        frame += config.block
        yield Block(latents[:, :left], state)


def scheduled(texts: Sequence, switch_frames: Sequence[int]) -> Callable[[int], object]:
    """`text_at` for prompts that begin at given frames.

    A prompt takes force at the first block that starts at its frame or later, and at most one
    does so per block, as upstream has it.

    Args:
      texts: embeddings of the prompts after the first.
      switch_frames: rising, one per prompt.
    Raises:
      ValueError: not one frame per prompt, or frames that fall.
    """
    if len(texts) != len(switch_frames) or list(switch_frames) != sorted(switch_frames):
        raise ValueError(
            f"{len(texts) + 1} prompts need {len(texts)} rising switch frames, "
            f"got {list(switch_frames)}"
        )
    waiting = list(zip(switch_frames, texts, strict=True))

    def text_at(frame: int):
        return waiting.pop(0)[1] if waiting and frame >= waiting[0][0] else None

    return text_at


def keyed_noise(keys, config: RolloutConfig, shape: Sequence[int]) -> Callable[[int], jax.Array]:
    """`noise` for `generate`, by frame, so that a resumed video gets what it would have got.

    keys: (b,), one per request (`core.noise.request_key`); shape: (h, w, c) of latents.
    """
    size = (len(config.steps), config.block, *shape)
    return functools.partial(_draw, size, keys)


@functools.partial(jax.jit, static_argnums=0)
def _draw(size, keys, frame):
    """(s, b, t, h, w, c) of the block that starts at a frame; size: the same without b."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, frame)
    return jnp.moveaxis(jax.vmap(lambda key: normal(key, size))(keys), 0, 1)
