"""Frames, FLOPs and memory of FDM's sampling, from shapes alone."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxvid.core.mesh import make_mesh
from jaxvid.fdm import schemes
from jaxvid.fdm.model import abstract_parameters, network
from jaxvid.fdm.process import make_process
from jaxvid.fdm.sample_config import Settings
from jaxvid.fdm.unet import Frames, UNetConfig
from jaxvid.runs import plan as plans
from jaxvid.runs.requests import Request


def plan(settings: Settings, wanted: Sequence[Request]) -> plans.Plan:
    """Cost of the requests that can be made."""
    wanted = [request for request in wanted if not request.error]
    steps, sampling = settings.steps(), settings.sampling
    evaluations = len(steps) * make_process(settings.diffusion).steps
    note = f"{sampling.n_obs} observed, {len(steps)} calls x {evaluations // len(steps)} steps"
    frames = plans.Frames
    mesh_size = make_mesh(settings.mesh, jax.local_devices()).shape["data"]
    return plans.Plan(
        frames=tuple(frames(r.id, settings.T, settings.T, settings.T, note) for r in wanted),
        flops=evaluation_flops(settings.network, settings.max_frames) * evaluations * len(wanted),
        memory_bytes=memory_bytes(settings, batch_size(settings, mesh_size) // mesh_size),
        available_bytes=plans.device_bytes(),
        compilations=2 if schemes.is_adaptive(sampling.scheme) and sampling.n_obs == 0 else 1,
    )


@functools.cache  # kept workers plan every clip
def evaluation_flops(config: UNetConfig, size: int) -> float:
    """FLOPs of one evaluation of the network for `size` frames of one video."""
    array = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    mask = array((1, size))
    frames = Frames(jax.ShapeDtypeStruct((1, size), jnp.int32), mask, mask, None, mask)
    x = array((1, size, config.image_size, config.image_size, config.image_channels))
    call = jax.jit(lambda p, x, t, f: network(config, p, x, x, t, f))
    traced = call.trace(abstract_parameters(config), x, array((1,)), frames)
    cost = traced.lower(lowering_platforms=("cpu",)).cost_analysis()
    return float((cost or {}).get("flops", 0.0))


def memory_bytes(settings: Settings, batch: int) -> int:
    """About what a device needs: parameters, conditioning, videos, and the widest activations."""
    config = settings.network
    params = sum(a.size * 4 for a in jax.tree.leaves(abstract_parameters(config)))
    width = 2 if config.dtype == "bfloat16" else 4
    frame = config.image_size**2 * config.channels * config.mult[0] * width
    activations = 16 * batch * settings.max_frames * frame  # the skips and a level's temporaries
    videos = 3 * batch * settings.T * config.image_size**2 * config.image_channels * 4
    return int(params + activations + videos + 2**28)


def batch_size(settings: Settings, devices: int) -> int:
    """Videos per call: at least one for each device of the data axis, a multiple of them."""
    return -(-settings.sampling.batch_size // devices) * devices
