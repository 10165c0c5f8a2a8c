"""LongLive's programs, to be compiled for devices that need not be there.

They are those of a video that is under way: the window is full, the decoder has a past.
"""

import functools
import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jaxvid.core.ahead import Program, abstract, resident_gb
from jaxvid.core.mesh import make_mesh, over_data, replicated, shardings
from jaxvid.longlive import rollout, sample
from jaxvid.longlive.cache import CausalWan
from jaxvid.longlive.cost import batch_size
from jaxvid.longlive.sample_config import Settings
from jaxvid.longlive.setup import sampling_settings
from jaxvid.wan import dit, umt5, vae
from jaxvid.wan.dit import KV

KEYS = P(None, "data", None, "tensor", None)  # of caches (l, b, m, k, d), see cache.write
BLOCK, DECODE, SWITCH = "block: denoising, cache write", "block: VAE decode", "switch: recache"


def programs(config: ConfigDict, devices: Sequence) -> Iterator[Program]:
    """What runs for each block, at a prompt switch, and before the first block.

    Raises:
      ValueError: see setup.sampling_settings and mesh.make_mesh.
    """
    settings = sampling_settings(config)
    mesh = decoder = make_mesh(settings.mesh, devices)
    if settings.sampling.decoder == "separate":
        if len(devices) < 2:
            raise ValueError("sampling.decoder=separate needs a target of 2 devices or more")
        mesh = make_mesh(settings.mesh, devices[:-1])
        decoder = make_mesh(type(settings.mesh)(), devices[-1:])
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
    parts = [generating[name] for name in (BLOCK, DECODE, SWITCH)]
    stays = sum(map(resident_gb, parts[:2]))
    largest = max(r["temporary_gb"] for r in parts)
    return {
        "stays_gb": round(stays, 3),
        "largest_temporary_gb": largest,
        "total_gb": round(stays + largest, 3),
    }


def network(settings: Settings) -> CausalWan:
    """The transformer with a cache that is as long as the settings' videos need it."""
    window = settings.rollout.cache_window(settings.length(0).made)
    return CausalWan(settings.network, window, jnp.dtype(settings.models.dtype))


def transformer_parameters(settings: Settings, mesh):
    """Abstract parameters in their places."""
    params = dit.abstract_parameters(settings.network)
    return jax.tree.map(
        lambda a, place: jax.ShapeDtypeStruct(a.shape, settings.models.dtype, sharding=place),
        params,
        shardings(params, dit.RULES, mesh),
    )


def text_rows(settings: Settings, mesh, batch: int) -> jax.ShapeDtypeStruct:
    """Embeddings of a prompt for each video."""
    shape = (batch, settings.network.text_length, settings.network.text_width)
    return jax.ShapeDtypeStruct(shape, settings.models.dtype, sharding=over_data(mesh))


def state(settings: Settings, mesh, batch: int) -> rollout.State:
    """All that a video keeps from block to block."""
    params, text = transformer_parameters(settings, mesh), text_rows(settings, mesh, batch)
    shape = (batch, *settings.latent_shape)
    begin = functools.partial(rollout.begin, network(settings), shape=shape)
    with jax.set_mesh(mesh):
        found = jax.eval_shape(lambda params, text: begin(params, text), params, text)
    split: list[KV] = [abstract(a, NamedSharding(mesh, KEYS)) for a in (found.cache, found.text)]
    recent = abstract(found.recent, over_data(mesh))
    return rollout.State(*split, recent, abstract(found.frame, replicated(mesh)))


def block(settings: Settings, mesh, batch: int) -> Program:
    """A block of latent frames: all steps and the pass that leaves its keys in the cache."""
    config = settings.rollout
    size = (len(config.steps), batch, config.block, *settings.latent_shape)
    place = NamedSharding(mesh, P(None, "data"))
    noise = jax.ShapeDtypeStruct(size, jnp.float32, sharding=place)
    params, past = transformer_parameters(settings, mesh), state(settings, mesh, batch)
    arguments = (network(settings), config, params, past, noise)
    return Program(BLOCK, rollout.advance, arguments, mesh)


def switch(settings: Settings, mesh, batch: int) -> Program:
    """The window's keys anew under another prompt, far from the start of a video."""
    causal = network(settings)
    frame = 2 * causal.window.frames

    def change(params, past, text):
        return rollout.switch(causal, settings.rollout, params, past, text, frame)

    params, past = transformer_parameters(settings, mesh), state(settings, mesh, batch)
    arguments = (params, past, text_rows(settings, mesh, batch))
    return Program(SWITCH, jax.jit(change, donate_argnums=1), arguments, mesh)


def decode(settings: Settings, mesh, batch: int) -> Program:
    """Frames of a block of latents, after other blocks."""
    config = settings.vae
    params = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, settings.models.dtype, sharding=replicated(mesh)),
        vae.abstract_parameters(config),
    )
    size = (batch, settings.rollout.block, *settings.latent_shape)
    latents = jax.ShapeDtypeStruct(size, jnp.float32, sharding=over_data(mesh))
    step = functools.partial(vae.decode_next, config)
    with jax.set_mesh(mesh):
        past = jax.eval_shape(step, params, latents)[1]
    past = jax.tree.map(functools.partial(_split_width, mesh), past)
    return Program(DECODE, sample._decode, (config, params, latents, past), mesh)


def _split_width(mesh, array) -> jax.ShapeDtypeStruct:
    """Split as the VAE leaves it, where the width divides."""
    parts = math.prod(mesh.shape[axis] for axis in vae.SPLIT[-1])
    spec = P(*vae.SPLIT) if array.shape[3] % parts == 0 else P(vae.SPLIT[0])
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=NamedSharding(mesh, spec))


def text_encoder(settings: Settings, mesh) -> Program:
    """One layer, over one prompt of full length; the layers come one by one, to one device."""
    config, tokens = settings.text, settings.network.text_length
    params = umt5.abstract_parameters(config)["block_0"]
    params = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, settings.models.dtype), params)
    x = jax.ShapeDtypeStruct((1, tokens, config.width), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, tokens), bool)
    arguments = (config, *abstract((params, x, mask), replicated(mesh)))
    return Program(f"text encoder: one of {config.layers} layers", umt5.run_block, arguments, mesh)
