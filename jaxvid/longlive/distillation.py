"""Updates of LongLive's distillations: rollouts, the generator's turn and the critic's.

Distribution matching (DMD) on what the generator makes itself, of short videos or chunk by chunk
of long ones (Self-Forcing, arXiv:2506.08009; LongLive, streaming long tuning).
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvid.core import flow
from jaxvid.core.mesh import constrain
from jaxvid.core.noise import normal
from jaxvid.longlive import losses, rollout, self_forcing
from jaxvid.longlive.recipe import Kind, Recipe
from jaxvid.longlive.train_config import blocks_without_gradient
from jaxvid.longlive.train_steps import Learner, learn, noise_of, whole
from jaxvid.wan.dit import KV, Dit, WanConfig


class Stream(NamedTuple):
    """What goes on from chunk to chunk."""

    cache: KV
    recent: jax.Array  # (b, reach, h, w, c) the newest clean frames
    frame: jax.Array  # () int32


def make_chunk(recipe: Recipe, params, stream: Stream | None, kind: Kind, text, key, exit_step):
    """A chunk of all videos, of noise drawn with a key; see `make_blocks`."""
    config = recipe.rollout
    blocks = kind.frames // config.block
    size = (text[0].shape[0], config.block, *recipe.latent_shape)
    noise_key, context_key = jax.random.split(key)
    noise = constrain(normal(noise_key, (blocks, len(config.steps), *size)), None, None, "data")
    context = constrain(normal(context_key, (blocks, *size)), None, "data")
    return make_blocks(recipe, params, stream, kind, text, noise, context, exit_step)


def make_blocks(recipe: Recipe, params, stream, kind: Kind, text, noise, context_noise, exit_step):
    """A chunk of all videos; gradients reach `params` from the blocks that have them.

    Args:
      stream: where they are; None begins new ones.
      text: embeddings (b, m, c) of the prompts, the first ones and those after a switch.
      noise: (blocks, e + 1 or more, b, t, h, w, c); context_noise: (blocks, b, t, h, w, c).
      exit_step: () int e, the denoising step with a gradient.
    Returns:
      The stream and the new frames (b, t, h, w, c).
    """
    network, config, blocks = recipe.causal, recipe.rollout, noise.shape[0]
    stream = begin(recipe, text[0].shape[0]) if stream is None else stream
    state = rollout.State(stream.cache, (), stream.recent, stream.frame)
    fixed = jax.lax.stop_gradient(params)
    first = max(
        blocks_without_gradient(recipe.train, kind.frames, config.block), kind.switch_block or 0
    )
    borders = sorted({0, first, kind.switch_block or 0, blocks})
    words, parts = text[0 if kind.switch_block is not None else kind.prompt], []
    for start, end in itertools.pairwise(borders):
        if start == kind.switch_block:
            words = text[1]
            state = rollout.switch(network, config, fixed, state, words, kind.switch_frame)
            state = state._replace(text=())
        state, made = self_forcing.train_chunk(
            network,
            config,
            fixed if start < first else params,
            state,
            words,
            noise[start:end],
            context_noise[start:end],
            exit_step,
            recipe.train.leaky_gradients,
        )
        parts.append(made)
    stream = jax.lax.stop_gradient(Stream(state.cache, state.recent, state.frame))
    return stream, jnp.concatenate(parts, axis=1)


def begin(recipe: Recipe, batch: int) -> Stream:
    """Videos without a frame yet."""
    height, width, channels = recipe.latent_shape
    recent = jnp.zeros((batch, recipe.reach, height, width, channels))
    cache = recipe.causal.empty_cache(batch, height, width)
    return Stream(cache, recent, jnp.zeros((), jnp.int32))


def loss_clip(recipe: Recipe, params, stream, kind: Kind, text, image, key, exit_step):
    """A new chunk among the frames that a loss looks at.

    image: (b, 1, h, w, c) in place of the clip's first frame, or None.
    Returns:
      The stream; the clip (b, frames, h, w, c), and (frames,) which of it counts.
    """
    frames = recipe.train.frames
    after, made = make_chunk(recipe, params, stream, kind, text, key, exit_step)
    before = made[:, :0] if stream is None else stream.recent[:, -frames:]
    return after, *self_forcing.loss_clip(before, made, frames, image)


def score(config: WanConfig, dtype: str, params, text):
    """A bidirectional network as the losses want it; one timestep for all frames."""

    def velocity(x, timesteps):
        network = Dit(config, jnp.dtype(dtype))
        return network.apply({"params": params}, x, timesteps[:, :1], text)[0]

    return velocity


def _asked(recipe: Recipe, clip, key):
    """Noise and timesteps (b, t) at which the score networks are asked, one per video."""
    noise_key, time_key = jax.random.split(key)
    number = jax.random.randint(time_key, (clip.shape[0], 1), 0, flow.STEPS)
    times = recipe.dmd.timestep(jnp.broadcast_to(number, clip.shape[:2]))
    return noise_of(noise_key, clip.shape), times


def teach_generator(
    recipe: Recipe, kind: Kind, learner: Learner, critic, frozen, stream, batch, image, key,
    exit_step, step,
):  # fmt: skip
    """An update of the generator by distribution matching.

    Args:
      critic: what the critic has learnt; frozen: "teacher", and what adapters adapt.
      others: see `loss_clip`.
    Returns:
      The learner, the stream, and metrics.
    """
    rollout_key, score_key = jax.random.split(key)
    text, dtype = batch.text[kind.prompt], recipe.dtype
    critic = whole(critic, frozen.get("critic"), recipe.critic_scale)
    networks = (
        score(recipe.critic, dtype, critic, text),
        score(recipe.teacher, dtype, frozen["teacher"], text),
        score(recipe.teacher, dtype, frozen["teacher"], batch.negative),
    )

    def loss(params):
        params = whole(params, frozen.get("generator"), recipe.lora_scale)
        after, clip, mask = loss_clip(
            recipe, params, stream, kind, batch.text, image, rollout_key, exit_step
        )
        direction = losses.dmd_direction(
            recipe.dmd, *networks, clip, *_asked(recipe, clip, score_key)
        )
        return losses.dmd_loss(clip, direction, mask), (after, jnp.abs(direction).mean())

    (value, (after, size)), gradient = jax.value_and_grad(loss, has_aux=True)(learner.params)
    metrics = {
        "generator_loss": value,
        "generator_grad_norm": optax.tree.norm(gradient),
        "direction": size,
    }
    return learn(recipe.train, recipe.train.lr, learner, gradient, step), after, metrics


def teach_critic(
    recipe: Recipe, kind: Kind, learner: Learner, generator, frozen, stream, batch, image, key,
    exit_step, step,
):  # fmt: skip
    """An update of the critic by flow matching on what the generator makes now; as above."""
    rollout_key, score_key = jax.random.split(key)
    text = batch.text[kind.prompt]
    generator = whole(generator, frozen.get("generator"), recipe.lora_scale)
    after, clip, mask = loss_clip(
        recipe, generator, stream, kind, batch.text, image, rollout_key, exit_step
    )
    noise, times = _asked(recipe, clip, score_key)

    def loss(params):
        params = whole(params, frozen.get("critic"), recipe.critic_scale)
        velocity = score(recipe.critic, recipe.dtype, params, text)
        return losses.critic_loss(recipe.dmd, velocity, clip, noise, times, mask)

    value, gradient = jax.value_and_grad(loss)(learner.params)
    metrics = {"critic_loss": value, "critic_grad_norm": optax.tree.norm(gradient)}
    return learn(recipe.train, recipe.train.critic_lr, learner, gradient, step), after, metrics


def make_only(recipe: Recipe, kind: Kind, generator, frozen, stream, batch, key, exit_step):
    """A chunk that nobody learns from; returns the stream."""
    generator = whole(generator, frozen.get("generator"), recipe.lora_scale)
    return make_chunk(recipe, generator, stream, kind, batch.text, key, exit_step)[0]
