"""FDM's sampling call and training update, compiled for GPUs that are not there."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jaxvid.core.ahead import abstract, compile_report, devices
from jaxvid.core.mesh import make_mesh, over_data, replicated
from jaxvid.fdm import train
from jaxvid.fdm.benchmark import example_frames, update_function
from jaxvid.fdm.model import abstract_parameters
from jaxvid.fdm.process import make_process
from jaxvid.fdm.sampler import call_noise, denoise_window
from jaxvid.fdm.setup import training_setup
from jaxvid.fdm.training_settings import Setup


def compile_programs(config: ConfigDict, request: str) -> dict:
    """A training config's programs in float32 and bfloat16.

    request: such as "h200:1x1x8", or several machines, "h200:1x1x1,1x1x8".
    Returns:
      dict: "aot", one report each, and "rows" of a table.
    Raises:
      ValueError: see training_setup and ahead.devices; a batch that the GPUs cannot share.
    """
    if not config.run.output:
        config.run.output = "outputs/benchmark_run"  # named but not written
    setup = training_setup(config)
    target, _, shapes = request.partition(":")
    reports = []
    for shape in shapes.split(","):
        mesh = make_mesh(setup.mesh, devices(target, shape))
        if setup.train.batch_size % mesh.shape["data"]:
            raise ValueError(
                f"--aot: {mesh.size} GPUs cannot share train.batch_size={setup.train.batch_size}"
            )
        for dtype in ("float32", "bfloat16"):
            network = dataclasses.replace(setup.network, dtype=dtype)
            one = dataclasses.replace(setup, network=network)
            for name, program in (("sampling call", call), ("training update", update)):
                function, *arguments = program(one, mesh)
                with jax.set_mesh(mesh):  # nothing can be computed in here
                    found = compile_report(function, *arguments)
                facts = {"program": name, "dtype": dtype, "machine": f"{target}:{shape}"}
                reports.append(facts | found)
                print(*row(reports[-1]), sep="  ", flush=True)
    note = "compiled ahead of time by XLA, never run: memory, kernels and collectives, no speed"
    return {"note": note, "aot": reports, "rows": [row(report) for report in reports]}


def row(report: dict) -> tuple:
    """Cells of the table."""
    fmha = report["kernels"]["cuDNN attention"]
    return (
        f"{report['program']}, {report['dtype']}, cuDNN attention x {fmha}",
        re.sub(r".*x", "", report["machine"]),
        f"{report['arguments_gb']:.2f} GB",
        f"{report['temporary_gb']:.2f} GB",
        f"{report['compile_seconds']:.0f} s",
    )


def call(setup: Setup, mesh):
    """One call of a scheme over all denoising steps, its frames the same for all videos."""
    config, process = setup.network, make_process(setup.diffusion)
    batch, size, side = setup.train.batch_size, setup.train.max_frames, config.image_size

    def complete(params, x0, keys, frames):
        noise = call_noise(keys, 0, x0.shape[1:])
        return denoise_window(config, process, params, x0, frames, noise)

    x0 = jax.ShapeDtypeStruct((batch, size, side, side, config.image_channels), jnp.float32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch))
    frames = jax.eval_shape(functools.partial(example_frames, 1, size))
    shared = (abstract_parameters(config), frames)
    params, frames = abstract(shared, replicated(mesh))
    return jax.jit(complete), params, *abstract((x0, keys), over_data(mesh)), frames


def update(setup: Setup, mesh):
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
    return update_function(setup), abstract(state, replicated(mesh)), batch
