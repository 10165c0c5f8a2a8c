"""Cosmos' programs, to be compiled for devices that need not be there.

Of sampling: a guided step of all cameras that the network knows, the VAE, one layer of the text
encoder, and the projection of a text. Of post-training: one update.
"""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jaxvid.core.ahead import Program, abstract, resident_gb
from jaxvid.core.mesh import MeshConfig, make_mesh, over_data, replicated, shardings
from jaxvid.cosmos import dit, model, text, train, train_models, training_run
from jaxvid.cosmos import programs as run
from jaxvid.cosmos.sample import Given
from jaxvid.cosmos.sample_config import Settings
from jaxvid.cosmos.setup import passes_together, sampling_mesh, sampling_settings
from jaxvid.cosmos.text import TOKENS
from jaxvid.cosmos.train import Batch
from jaxvid.cosmos.train_setup import Setup, training_setup
from jaxvid.wan import vae

STEP, ENCODE, DECODE = "step: both passes of guidance", "VAE encode", "VAE decode"
UPDATE = "update of the part"


def programs(config: ConfigDict, devices: Sequence) -> Iterator[Program]:
    """What runs for a chunk and for a prompt, or the update of a config with a section `train`.

    Raises:
      ValueError: see setup.sampling_settings, train_setup.training_setup and mesh.make_mesh.
    """
    if "train" in config:
        setup = training_setup(_placed(config))
        yield update(setup, make_mesh(setup.mesh, devices))
        return
    settings = sampling_settings(config)
    mesh = sampling_mesh(settings, devices)
    yield step(settings, mesh)
    yield encode(settings, mesh)
    yield decode(settings, mesh)
    alone = make_mesh(MeshConfig(), devices[:1])
    if settings.network.text_in:
        yield projection(settings, alone)
    if settings.text.network:
        yield text_layer(settings, alone)


def together(reports: Sequence[dict]) -> dict:
    """Memory per device: transformer and VAE, or what an update keeps, and the largest temporaries.

    The text encoder is gone by then, and texts are projected.
    """
    parts = [r for r in reports if r["program"].startswith((STEP, ENCODE, DECODE, UPDATE))]
    stays, largest = sum(map(resident_gb, parts)), max(r["temporary_gb"] for r in parts)
    return {
        "stays_gb": round(stays, 3),
        "largest_temporary_gb": largest,
        "total_gb": round(stays + largest, 3),
    }


def _placed(config: ConfigDict) -> ConfigDict:
    """The config with a folder of the run, which nothing is written to here."""
    config = ConfigDict(config.to_dict())
    config.run.output = config.run.output or "outputs"
    return config


def transformer_parameters(settings: Settings, mesh: Mesh):
    """Abstract parameters in their places."""
    params = model.abstract_parameters(settings.network)
    return jax.tree.map(
        lambda a, place: jax.ShapeDtypeStruct(a.shape, settings.models.dtype, sharding=place),
        params,
        shardings(params, dit.RULES, mesh),
    )


def step(settings: Settings, mesh: Mesh) -> Program:
    """The guided velocity of all views; the solver's sums are left out."""
    network, place = settings.network, replicated(mesh)
    views = network.views

    def array(shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    x = array((1, views, *settings.latent_shape))
    scene = run.Scene(
        texts=array((2, views, TOKENS, network.text_width), jnp.dtype(network.dtype)),
        control=x,
        views=array((views,), jnp.int32),
        guidance=array(()),
        scale=array(()),
    )
    given = Given(x, array(x.shape[:3]))
    params = transformer_parameters(settings, mesh)
    passes = passes_together(settings, mesh)
    arguments = (network, passes, "guided", params, scene, x, array(()), given, x)
    return Program(f"{STEP}, {views} views", run.velocity, arguments, mesh)


def _coded(settings: Settings, mesh: Mesh) -> tuple[int, object]:
    """Views that are coded at a time, and the VAE's parameters."""
    views = mesh.shape["data"] * mesh.shape["view"]
    params = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, settings.models.dtype),
        vae.abstract_parameters(settings.vae),
    )
    return views, abstract(params, replicated(mesh))


def encode(settings: Settings, mesh: Mesh) -> Program:
    """Latents of the frames of as many views as are coded at a time."""
    views, params = _coded(settings, mesh)
    shape = (views, settings.frames, settings.sampling.height, settings.sampling.width, 3)
    frames = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=replicated(mesh))
    return Program(f"{ENCODE}, {views} at a time", run.encode, (settings.vae, params, frames), mesh)


def decode(settings: Settings, mesh: Mesh) -> Program:
    """Frames of the latents of as many views as are coded at a time."""
    views, params = _coded(settings, mesh)
    shape = (views, *settings.latent_shape)
    latents = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=replicated(mesh))
    alone = settings.network.views == 1
    arguments = (settings.vae, settings.sampling.pixels, alone, params, latents)
    return Program(f"{DECODE}, {views} at a time", run.decode, arguments, mesh)


def projection(settings: Settings, mesh: Mesh) -> Program:
    """A text's embedding to words, once for all runs; on one device, as the text encoder."""
    network = settings.network
    embeddings = jax.ShapeDtypeStruct((TOKENS, network.text_in), settings.text.config.dtype)
    params = {n: a for n, a in transformer_parameters(settings, mesh).items() if n == "text"}
    arguments = (network, params, abstract(embeddings, replicated(mesh)))
    return Program("text: projection", run.text_context, arguments, mesh)


def text_layer(settings: Settings, mesh: Mesh) -> Program:
    """One layer, over one prompt; the layers come one by one, to one device."""
    config = settings.text.network
    params = text.abstract_parameters(config)["block_0"]
    params = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, config.dtype), params)
    x = jax.ShapeDtypeStruct((1, TOKENS, config.width), jnp.float32)
    positions = jax.ShapeDtypeStruct((TOKENS,), jnp.int32)
    arguments = (config, *abstract((params, x, positions), replicated(mesh)))
    return Program(f"text encoder: one of {config.layers} layers", text.run_block, arguments, mesh)


def update(setup: Setup, mesh: Mesh) -> Program:
    """One update of post-training; the state is consumed."""
    config, key = setup.train, jax.random.key(setup.train.seed)
    params = train_models.abstract_parameters(setup, mesh)
    if config.part == "lora":
        trained, frozen = jax.eval_shape(lambda: train.divide(config, params, key)[0]), params
    else:
        trained, frozen = train.divide(config, params, key)
    state = jax.eval_shape(functools.partial(train.initial_state, config), trained)
    places = shardings(state, train.RULES, mesh)
    state = jax.tree.map(
        lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), state, places
    )
    function = training_run.update_function(setup, places, key)
    name = f"{UPDATE} {config.part!r}, {config.batch_size} at a time"
    return Program(name, function, (state, frozen, batch(setup, mesh)), mesh)


def batch(setup: Setup, mesh: Mesh) -> Batch:
    """What an update reads."""
    rows, views = setup.train.batch_size, len(setup.data.ids)
    network, dtype = setup.network, setup.models.dtype
    width = network.text_in if setup.train.part == "all" else 0

    def array(shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=over_data(mesh))

    latents = array((views, *setup.latent_shape), dtype)
    return Batch(
        latents=latents,
        control=latents,
        text=array((views, TOKENS, width or network.text_width), dtype),
        sigma=array(()),
        given=array((views, setup.latent_shape[0])),
        view_ids=jax.ShapeDtypeStruct((views,), jnp.int32, sharding=NamedSharding(mesh, P())),
    )
