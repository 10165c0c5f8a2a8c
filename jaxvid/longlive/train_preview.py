"""Sample videos of a training run: short rollouts of the generator as it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core.distributed import whole
from jaxvid.core.noise import normal
from jaxvid.core.video import VideoWriter, to_uint8
from jaxvid.longlive import rollout, train_steps
from jaxvid.longlive.cache import CausalWan
from jaxvid.longlive.train_videos import FPS
from jaxvid.wan import vae

SHOWN = 4  # videos that are written


def write_previews(system, state, step: int) -> None:
    """Videos of the first prompts, the same noise every time; every process calls it."""
    latents = preview_latents(system, state, step)
    decode = functools.partial(vae.decode, system.setup.vae, step=system.setup.rollout.block)
    videos = whole(jax.jit(decode)(system.vae, latents))
    if jax.process_index() > 0:
        return
    for index, video in enumerate(videos[:SHOWN]):
        path = system.run.folder / "samples" / f"step_{step:08d}_{index}.mp4"
        with VideoWriter(path, fps=FPS) as writer:
            writer.write(to_uint8(np.clip(video, -1, 1)))


def preview_latents(system, state, step: int) -> jax.Array:
    """(b, sample_frames, h, w, c) of one video per device of the data axis."""
    setup, count = system.setup, system.devices.shape["data"]
    config, frames = setup.rollout, setup.train.sample_frames
    network = CausalWan(setup.network, config.cache_window(frames), jnp.dtype(setup.models.dtype))
    learner = state.generator
    averaged = learner.ema and step > setup.train.ema_start
    params = train_steps.whole(
        learner.ema if averaged else learner.params,
        system.frozen.get("generator"),
        setup.lora_scale,
    )
    text = system.batches.shown_texts()
    state = rollout.begin(network, params, text, (count, *setup.latent_shape))
    size = (len(config.steps), count, config.block, *setup.latent_shape)

    @jax.jit
    def noise(frame):
        return normal(jax.random.fold_in(jax.random.key(setup.train.seed), frame), size)

    blocks = rollout.generate(network, config, params, state, noise, frames)
    return jnp.concatenate([block.latents for block in blocks], axis=1)
