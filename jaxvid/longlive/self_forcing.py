"""Rollouts to train on: few-step generation of which one step per block has a gradient.

The generator makes a chunk of frames as at inference. In every block it stops at an exit step,
whose clean prediction is the block; only this pass is differentiated, and the cache counts as
constant. The pass that writes the cache sees the block with a little noise, unlike at inference
(Self-Forcing and LongLive v1.0, `pipeline/self_forcing_training.py`).
"""

import functools

import jax
import jax.numpy as jnp

from jaxvid.core import flow
from jaxvid.longlive.rollout import RolloutConfig, State, remember
from jaxvid.wan.dit import KV


def train_block(
    network,
    config: RolloutConfig,
    params,
    state: State,
    text,
    noise,
    context_noise,
    exit_step,
    leaky: bool = False,
):
    """One block with a gradient.

    Args:
      state: its cache holds no gradient, unless `leaky`; its text is not used.
      text: (b, m, text_width) embeddings, or keys that were made of them with a gradient.
      noise: (e + 1 or more, b, t, h, w, c) what the block starts from, and what is added after
        each step before the exit step e.
      context_noise: (b, t, h, w, c) for the pass that writes the cache.
      exit_step: int or () int, the index of the step with a gradient; it may be traced, so that
        one program serves all.
      leaky: a fault of upstream: gradients reach the exit steps of earlier blocks through the
        cache, whose values are those of the later, clean pass.
    Returns:
      The state and the block (b, t, h, w, c).
    """
    levels = flow.few_steps(config.steps, config.shift, config.warp_steps)
    frames = state.frame + jnp.arange(noise.shape[2])
    end = state.frame + noise.shape[2]
    fixed, cache = jax.lax.stop_gradient((params, state.cache))
    keys = jax.lax.stop_gradient(
        network.text_keys(fixed, text) if not isinstance(text, KV) else text
    )
    call = functools.partial(network.forward, frames=frames, end=end)
    timesteps, sigmas = map(jnp.asarray, levels)

    def step_down(step, carry):
        x, cache = carry
        velocity, cache = call(fixed, x, timesteps[step], keys, cache)
        clean = flow.clean_of(x, velocity, sigmas[step])
        return flow.add_noise(clean, noise[step + 1], sigmas[step + 1]), cache

    x, cache = jax.lax.fori_loop(0, exit_step, step_down, (noise[0], cache))
    timestep, x = timesteps[exit_step], jax.lax.stop_gradient(x)
    if leaky:
        velocity, leak = call(params, x, timestep, text, state.cache)
    else:
        velocity, _ = call(params, x, timestep, text, None, frozen=cache)
    clean = flow.clean_of(x, velocity, sigmas[exit_step])
    sigma = flow.sigma_at(config.context_timestep, config.shift)
    context = jax.lax.stop_gradient(flow.add_noise(clean, context_noise, sigma))
    _, cache = call(fixed, context, config.context_timestep, keys, cache)
    if leaky:
        cache = jax.tree.map(lambda a, b: b + jax.lax.stop_gradient(a - b), cache, leak)
    recent = remember(state.recent, jax.lax.stop_gradient(clean))
    return state._replace(cache=cache, recent=recent, frame=end), clean


def train_chunk(
    network, config, params, state, text, noise, context_noise, exit_step, leaky: bool = False
):
    """Some blocks, one after the other.

    Args:
      noise: (blocks, e + 1 or more, b, t, h, w, c); context_noise: (blocks, b, t, h, w, c).
      others: as `train_block`.
    Returns:
      The state and the chunk (b, blocks * t, h, w, c).
    """

    def block(state, inputs):
        return train_block(network, config, params, state, text, *inputs, exit_step, leaky)

    state, blocks = jax.lax.scan(block, state, (noise, context_noise))
    blocks = jnp.moveaxis(blocks, 0, 1)
    return state, blocks.reshape(blocks.shape[0], -1, *blocks.shape[3:])


def loss_clip(previous, chunk, frames: int, first=None):
    """The frames a loss looks at, and which of them count.

    The score networks know videos that begin with an image, so the first frame of a clip from
    the middle of a video can be given anew: the VAE's latents of that frame alone.

    Args:
      previous: (b, n, h, w, c) frames before the chunk, without gradient; n can be 0.
      chunk: (b, t, h, w, c) new frames.
      frames: length of the clip.
      first: (b, 1, h, w, c) in place of the clip's first frame.
    Returns:
      (b, frames, h, w, c), the newest, and (frames,) True for those of the chunk.
    """
    clip = jnp.concatenate([jax.lax.stop_gradient(previous), chunk], axis=1)[:, -frames:]
    if first is not None:
        clip = jnp.concatenate([jax.lax.stop_gradient(first), clip[:, 1:]], axis=1)
    return clip, jnp.arange(frames) >= frames - chunk.shape[1]
