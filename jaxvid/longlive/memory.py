"""The devices of LongLive's sampling, and what each has to hold, from shapes alone."""

import math

import jax

from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.longlive import shapes
from jaxvid.longlive.sample_config import Settings
from jaxvid.longlive.split import check_split

# Temporaries of decoding a block in units of its widest activation (all frames of the block at
# full size): what is split over devices, and what is not. Fitted to programs that XLA has compiled
# for one and eight H200; the planner compiles them (scripts/plan.py).
SPLIT, WHOLE = 2.8, 1.3


def memory_parts(settings: Settings, frames: int) -> dict[str, int]:
    """Bytes per device by what they are for, of videos of so many latent frames.

    What stays is exact, the temporaries of the largest program, VAE decoding, are about right. With
    a decoder of its own no device holds all of this.
    """
    mesh = decoder = sampling_mesh(settings)
    if settings.sampling.decoder == "separate":
        decoder = make_mesh(MeshConfig(), jax.devices()[-1:])
    batch = batch_size(settings, mesh.shape["data"])
    weights = (
        shapes.transformer_parameters(settings, mesh),
        shapes.vae_parameters(settings, decoder),
    )
    state = shapes.state(settings, mesh, batch, frames)
    return {
        "weights": on_a_device(weights),
        "KV cache": on_a_device(state),
        "the decoder's past": on_a_device(shapes.decoder_past(settings, decoder, batch)),
        "temporaries about": decoding_temporaries(settings, decoder, batch),
    }


def on_a_device(tree) -> int:
    """Bytes of a tree of jax.ShapeDtypeStructs, of the parts that one device holds."""
    return sum(
        math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(tree)
    )


def decoding_temporaries(settings: Settings, mesh, batch: int) -> int:
    """About the bytes that a device needs on top while it decodes a block."""
    config, sampling = settings.vae, settings.sampling
    frames = settings.rollout.block * config.time_stride
    width = 2 if config.dtype == "bfloat16" else 4
    activation = frames * sampling.height * sampling.width * config.width * width
    spread = mesh.shape["seq"] * mesh.shape["tensor"]
    return int(batch // mesh.shape["data"] * activation * (SPLIT / spread + WHOLE))


def sampling_mesh(settings: Settings):
    """The mesh of the transformer: all devices of the JAX run, but one that only decodes.

    Raises:
      ValueError: see make_mesh and check_split; a decoder of its own where there is one device, or
        several hosts.
    """
    devices = jax.devices()
    if settings.sampling.decoder == "separate":
        if jax.process_count() > 1:
            raise ValueError(
                "sampling.decoder=separate works within one host: use 'shared', or run.hosts=divide"
            )
        if len(devices) < 2:
            raise ValueError(
                "sampling.decoder=separate needs 2 devices or more, there is 1: use 'shared'"
            )
        devices = devices[:-1]
    mesh = make_mesh(settings.mesh, devices)
    check_split(mesh, [settings.network], settings.latent_shape, settings.rollout.block)
    return mesh


def batch_size(settings: Settings, devices: int) -> int:
    """Videos per call: at least one for each device of the data axis, a multiple of them."""
    return -(-settings.sampling.batch_size // devices) * devices
