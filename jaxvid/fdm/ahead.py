"""FDM's sampling call and training update, to be compiled for devices that need not be there."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jaxvid.core.ahead import Program, abstract
from jaxvid.core.mesh import make_mesh, over_data, replicated
from jaxvid.fdm import train
from jaxvid.fdm.benchmark import example_frames
from jaxvid.fdm.model import abstract_parameters
from jaxvid.fdm.process import DiffusionConfig, make_process
from jaxvid.fdm.sampler import call_noise, denoise_window
from jaxvid.fdm.setup import sampling_settings, training_setup
from jaxvid.fdm.training_run import update_function
from jaxvid.fdm.training_settings import Setup
from jaxvid.fdm.unet import UNetConfig


def programs(config: ConfigDict, devices: Sequence) -> Iterator[Program]:
    """Of a sampling config its call, of a training config the update besides.

    Raises:
      ValueError: see setup.training_setup, setup.sampling_settings and mesh.make_mesh; a batch
        that the devices cannot share.
    """
    if "train" in config:
        yield from training_programs(_setup(config), devices)
        return
    settings = sampling_settings(config)
    mesh = make_mesh(settings.mesh, devices)
    wide = mesh.shape["data"]
    batch = -(-settings.sampling.batch_size // wide) * wide
    yield call(settings.network, settings.diffusion, batch, settings.max_frames, mesh)


def _setup(config: ConfigDict) -> Setup:
    if not config.run.output:
        config.run.output = "outputs/planned"  # named but not written
    return training_setup(config)


def training_programs(setup: Setup, devices: Sequence) -> Iterator[Program]:
    """A sampling call with a batch as large as that of training, and an update."""
    mesh, size = make_mesh(setup.mesh, devices), setup.train.batch_size
    if size % mesh.shape["data"]:
        raise ValueError(f"{mesh.size} devices cannot share train.batch_size={size}")
    yield call(setup.network, setup.diffusion, size, setup.train.max_frames, mesh)
    yield update(setup, mesh)


def call(config: UNetConfig, diffusion: DiffusionConfig, batch: int, size: int, mesh) -> Program:
    """One call of a scheme over all denoising steps, its `size` frames the same for all videos."""
    process, side = make_process(diffusion), config.image_size

    def complete(params, x0, keys, frames):
        noise = call_noise(keys, 0, x0.shape[1:])
        return denoise_window(config, process, params, x0, frames, noise)

    x0 = jax.ShapeDtypeStruct((batch, size, side, side, config.image_channels), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    frames = jax.eval_shape(functools.partial(example_frames, 1, size))
    params, frames = abstract((abstract_parameters(config), frames), replicated(mesh))
    arguments = (params, *abstract((x0, keys), over_data(mesh)), frames)
    return Program("sampling call", jax.jit(complete), arguments, mesh)


def update(setup: Setup, mesh) -> Program:
    """One update of all microbatches."""
    config, parts = setup.network, setup.train.microbatches
    few, size, side = setup.train.batch_size // parts, setup.train.max_frames, config.image_size

    def example():
        frames = example_frames(few, size)
        clean = jnp.zeros((few, size, side, side, config.image_channels), jnp.uint8)
        batch = train.Batch(clean, frames, jnp.zeros(few, jnp.int32), jnp.ones(few), None)
        return jax.tree.map(lambda a: jnp.broadcast_to(a, (parts, *a.shape)), batch)

    state = jax.eval_shape(
        functools.partial(train.initial_state, setup.train), abstract_parameters(config)
    )
    batch = abstract(jax.eval_shape(example), NamedSharding(mesh, P(None, "data")))
    arguments = (abstract(state, replicated(mesh)), batch)
    return Program("training update", update_function(setup), arguments, mesh)
