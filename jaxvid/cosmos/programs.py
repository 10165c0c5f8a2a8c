"""The compiled programs of multiview sampling: one denoising step, VAE encode and decode, text."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvid.core import solvers
from jaxvid.core.mesh import axis_size
from jaxvid.cosmos import model, outputs, sample
from jaxvid.cosmos.dit import DitConfig
from jaxvid.cosmos.sample import Given, Kind
from jaxvid.wan import vae
from jaxvid.wan.vae import VaeConfig

PIECE = 1  # latent frames that the VAE codes at a time: little memory, and no slower


class Scene(NamedTuple):
    """What stays the same in all steps of a chunk.

    texts: (2, v, m, c) for the prompt and for the negative prompt; control: (1, v, t, h, w, c)
    latents; views: (v,) ids; guidance, scale: () of the guidance and of the control.
    """

    texts: jax.Array
    control: jax.Array
    views: jax.Array
    guidance: jax.Array
    scale: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def velocity(config: DitConfig, together: bool, kind: Kind, params, scene: Scene, x, timestep,
             given: Given, noise):  # fmt: skip
    """The guided velocity of one step, see sample.velocity.

    together: both passes of guidance are one batch of two, else one follows the other. A mesh that
      is split over `data` always makes both.
    """

    def once(texts, x, timestep):
        batch = x.shape[0]
        repeat = lambda a: jnp.broadcast_to(a, (batch, *a.shape[1:]))  # noqa: E731
        return model.velocity(
            config,
            params,
            x,
            jnp.broadcast_to(timestep, (batch,)),
            texts,
            repeat(scene.control),
            given=repeat(given.mask),
            view_ids=scene.views,
            control_scale=scene.scale,
        )

    def network(x, timestep, guided):
        if together and (guided or axis_size("data") > 1):
            both = once(scene.texts, jnp.concatenate([x, x]), timestep)
            return both[:1], both[1:] if guided else None
        if not guided:
            return once(scene.texts[:1], x, timestep), None
        both = jax.lax.map(lambda texts: once(texts[None], x, timestep), scene.texts)
        return both[0], both[1]

    return sample.velocity(network, scene.guidance, kind, x, timestep, given, noise)


advance = jax.jit(solvers.step)


@functools.partial(jax.jit, static_argnums=0)
def text_context(config: DitConfig, params, embeddings):
    """(m, c) words of one text, see model.text_context; `params` may be of the projection alone."""
    return model.text_context(config, params, embeddings[None, None])[0, 0]


@functools.partial(jax.jit, static_argnums=0)
def encode(config: VaeConfig, params, frames):
    """Latents (v, t, h, w, c) float32 of uint8 frames (v, t, h, w, 3)."""
    video = frames.astype(config.dtype) / 127.5 - 1
    return vae.encode(config, params, video, PIECE)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def decode(config: VaeConfig, pixels: str, alone: bool, params, latents):
    """uint8 frames of latents (v, t, h, w, c), and whether all are numbers.

    Args:
      pixels: "round" to the nearest level, or "truncate" as upstream: floor(255 y) of y in [0, 1].
      alone: the sample has one view, whose pixels upstream truncates in float32; those of several
        it truncates in the type of the VAE.
    """
    video = vae.decode(config, params, latents.astype(config.dtype), PIECE)
    if pixels == "round":
        levels = jnp.rint(jnp.clip((video + 1) * 127.5, 0, 255)).astype(jnp.uint8)
    else:
        levels = truncated(video if alone else video.astype(config.dtype))
    return levels, jnp.isfinite(video).all()


def truncated(video):
    """uint8 of floats about [-1, 1], all in their type, as upstream."""
    return outputs.truncated(outputs.rounded(outputs.rounded(video) + 1) / 2)
