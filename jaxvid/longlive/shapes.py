"""Shapes, types and places of what LongLive computes with, without the numbers.

For compiling ahead of time, and for reading back what a killed run has left.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvid.core.mesh import over_data, replicated, shardings
from jaxvid.longlive import rollout
from jaxvid.longlive.cache import CausalWan
from jaxvid.longlive.sample_config import Settings
from jaxvid.wan import dit, vae
from jaxvid.wan.dit import KV

KEYS = P(None, "data", None, "tensor", None)  # of caches (l, b, m, k, d), see cache.write


def network(settings: Settings, frames: int) -> CausalWan:
    """The transformer with the cache of a video of so many latent frames."""
    window = settings.rollout.cache_window(frames)
    return CausalWan(settings.network, window, jnp.dtype(settings.models.dtype))


def transformer_parameters(settings: Settings, mesh):
    """Parameters of the transformer."""
    params = dit.abstract_parameters(settings.network)
    return jax.tree.map(
        lambda a, place: jax.ShapeDtypeStruct(a.shape, settings.models.dtype, sharding=place),
        params,
        shardings(params, dit.RULES, mesh),
    )


def vae_parameters(settings: Settings, mesh):
    """Parameters of the VAE."""
    return jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, settings.models.dtype, sharding=replicated(mesh)),
        vae.abstract_parameters(settings.vae),
    )


def text_rows(settings: Settings, mesh, batch: int) -> jax.ShapeDtypeStruct:
    """Embeddings of a prompt for each video."""
    shape = (batch, settings.network.text_length, settings.network.text_width)
    return jax.ShapeDtypeStruct(shape, settings.models.dtype, sharding=over_data(mesh))


def latents(settings: Settings, mesh, batch: int) -> jax.ShapeDtypeStruct:
    """A block."""
    size = (batch, settings.rollout.block, *settings.latent_shape)
    return jax.ShapeDtypeStruct(size, jnp.float32, sharding=over_data(mesh))


def state_places(mesh) -> rollout.State:
    """Where the parts of a state are, before the first block as after each."""
    keys = KV(*[NamedSharding(mesh, KEYS)] * 2)
    return rollout.State(keys, keys, over_data(mesh), replicated(mesh))


def state(settings: Settings, mesh, batch: int, frames: int) -> rollout.State:
    """All that a video of so many latent frames keeps from block to block."""
    params, text = transformer_parameters(settings, mesh), text_rows(settings, mesh, batch)
    shape = (batch, *settings.latent_shape)
    begin = functools.partial(rollout.begin, network(settings, frames), shape=shape)
    with jax.set_mesh(mesh):
        found = jax.eval_shape(lambda params, text: begin(params, text), params, text)
    return jax.tree.map(_placed, found, state_places(mesh))


def decoder_past(settings: Settings, mesh, batch: int):
    """What the decoder keeps from block to block: split along the width, where it divides."""
    step = functools.partial(vae.decode_next, settings.vae)
    arguments = vae_parameters(settings, mesh), latents(settings, mesh, batch)
    with jax.set_mesh(mesh):  # nothing can be computed in here if the devices are not there
        past = jax.eval_shape(step, *arguments)[1]
    parts = math.prod(mesh.shape[axis] for axis in vae.SPLIT[-1])

    def split(array):
        spec = P(*vae.SPLIT) if array.shape[3] % parts == 0 else P(vae.SPLIT[0])
        return _placed(array, NamedSharding(mesh, spec))

    return jax.tree.map(split, past)


def _placed(array, place) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place)
