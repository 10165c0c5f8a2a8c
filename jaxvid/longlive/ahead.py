"""LongLive's programs, to be compiled for devices that need not be there.

They are those of a video that is under way: the window is full, the decoder has a past.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jaxvid.core.ahead import Program, abstract, resident_gb
from jaxvid.core.mesh import make_mesh, replicated
from jaxvid.longlive import rollout, sample, shapes, train_ahead
from jaxvid.longlive.memory import batch_size
from jaxvid.longlive.sample_config import Settings
from jaxvid.longlive.setup import sampling_settings
from jaxvid.longlive.split import check_split
from jaxvid.wan import umt5

BLOCK, DECODE, SWITCH = "block: denoising, cache write", "block: VAE decode", "switch: recache"


def programs(config: ConfigDict, devices: Sequence) -> Iterator[Program]:
    """What runs for each block, at a prompt switch, and before the first block.

    Of a training config, its updates (see train_ahead).

    Raises:
      ValueError: see setup.sampling_settings, mesh.make_mesh and split.check_split.
    """
    if "train" in config:
        yield from train_ahead.programs(config, devices)
        return
    settings = sampling_settings(config)
    mesh = decoder = make_mesh(settings.mesh, devices)
    if settings.sampling.decoder == "separate":
        if len(devices) < 2:
            raise ValueError("sampling.decoder=separate needs a target of 2 devices or more")
        mesh = make_mesh(settings.mesh, devices[:-1])
        decoder = make_mesh(type(settings.mesh)(), devices[-1:])
    check_split(mesh, [settings.network], settings.latent_shape, settings.rollout.block)
    batch = batch_size(settings, mesh.shape["data"])
    yield block(settings, mesh, batch)
    yield decode(settings, decoder, batch)
    yield switch(settings, mesh, batch)
    yield text_encoder(settings, make_mesh(type(settings.mesh)(), devices[:1]))


def together(reports: Sequence[dict]) -> dict:
    """Memory per device while a video is made: all that stays, and the largest temporaries.

    The text encoder is gone by then. With a decoder of its own no device holds all of this.
    """
    generating = {r["program"]: r for r in reports}
    if BLOCK not in generating:
        return train_ahead.together(reports)
    parts = [generating[name] for name in (BLOCK, DECODE, SWITCH)]
    stays = sum(map(resident_gb, parts[:2]))
    largest = max(r["temporary_gb"] for r in parts)
    return {
        "stays_gb": round(stays, 3),
        "largest_temporary_gb": largest,
        "total_gb": round(stays + largest, 3),
    }


def block(settings: Settings, mesh, batch: int) -> Program:
    """A block of latent frames: all steps and the pass that leaves its keys in the cache."""
    config = settings.rollout
    size = (len(config.steps), batch, config.block, *settings.latent_shape)
    place = NamedSharding(mesh, P(None, "data"))
    noise = jax.ShapeDtypeStruct(size, jnp.float32, sharding=place)
    params, frames = shapes.transformer_parameters(settings, mesh), settings.length(0).made
    past = shapes.state(settings, mesh, batch, frames)
    arguments = (shapes.network(settings, frames), config, params, past, noise)
    return Program(BLOCK, rollout.advance, arguments, mesh)


def switch(settings: Settings, mesh, batch: int) -> Program:
    """The window's keys anew under another prompt, far from the start of a video."""
    frames = settings.length(0).made
    causal = shapes.network(settings, frames)
    frame = 2 * causal.window.frames

    def change(params, past, text):
        return rollout.switch(causal, settings.rollout, params, past, text, frame)

    params = shapes.transformer_parameters(settings, mesh)
    past = shapes.state(settings, mesh, batch, frames)
    arguments = (params, past, shapes.text_rows(settings, mesh, batch))
    return Program(SWITCH, jax.jit(change, donate_argnums=1), arguments, mesh)


def decode(settings: Settings, mesh, batch: int) -> Program:
    """Frames of a block of latents, after other blocks."""
    latents, past = (f(settings, mesh, batch) for f in (shapes.latents, shapes.decoder_past))
    arguments = (settings.vae, shapes.vae_parameters(settings, mesh), latents, past)
    return Program(DECODE, sample.decode_block, arguments, mesh)


def text_encoder(settings: Settings, mesh) -> Program:
    """One layer, over one prompt of full length; the layers come one by one, to one device."""
    config, tokens = settings.text, settings.network.text_length
    params = umt5.abstract_parameters(config)["block_0"]
    params = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, settings.models.dtype), params)
    x = jax.ShapeDtypeStruct((1, tokens, config.width), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, tokens), bool)
    arguments = (config, *abstract((params, x, mask), replicated(mesh)))
    return Program(f"text encoder: one of {config.layers} layers", umt5.run_block, arguments, mesh)
