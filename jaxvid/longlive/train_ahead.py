"""LongLive's training programs, to be compiled for devices that need not be there.

A rollout stops at a step that is drawn; these stop at the last one, the dearest, which is fixed so
that its passes can be counted.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from jaxvid.core.ahead import Program, abstract, resident_gb
from jaxvid.core.mesh import make_mesh, over_data, replicated
from jaxvid.longlive import stream, train_state
from jaxvid.longlive.stream import Chunk, Position
from jaxvid.longlive.train_run import regressing, teaching
from jaxvid.longlive.train_setup import Setup, training_setup
from jaxvid.longlive.train_steps import Batch


def programs(config: ConfigDict, devices: Sequence) -> Iterator[Program]:
    """Of a distillation the generator's turn and the critic's, of a regression the update.

    Raises:
      ValueError: see train_setup.training_setup and mesh.make_mesh; a batch that the devices
        cannot share.
    """
    config.run.output = config.run.output or "outputs/planned"  # named but not written
    setup = training_setup(config)
    mesh = make_mesh(setup.mesh, devices)
    if setup.train.batch_size % mesh.shape["data"]:
        raise ValueError(
            f"{mesh.shape['data']} devices cannot share train.batch_size={setup.train.batch_size}"
        )
    if not setup.train.distils:
        yield regression(setup, mesh)
        return
    for who in ("generator", "critic"):
        yield turn(setup, mesh, who)


def together(reports: Sequence[dict]) -> dict:
    """Memory per device: what both turns keep of each other is not counted twice."""
    stays = max(map(resident_gb, reports))
    largest = max(r["temporary_gb"] for r in reports)
    return {
        "stays_gb": round(stays, 3),
        "largest_temporary_gb": largest,
        "total_gb": round(stays + largest, 3),
    }


def example_chunk(setup: Setup) -> Chunk:
    """A chunk in the middle of a long video, or a whole short one."""
    if setup.train.stage == "dmd":
        return stream.next_chunk(setup.train, setup.rollout.block, Position())
    return Chunk(0, setup.train.frames, setup.train.new_frames, None, 0)


def turn(setup: Setup, mesh, who: str) -> Program:
    """One turn of the generator or the critic: a rollout, the scores, the update."""
    recipe, like = setup.recipe, train_state.abstract_state(setup, mesh)
    chunk, frozen = example_chunk(setup), train_state.abstract_frozen(setup, mesh)
    program = teaching(recipe, like, who, recipe.kind(chunk), len(setup.rollout.steps) - 1)
    other = like.critic if who == "generator" else like.generator
    image = None
    if chunk.start and setup.train.image_first:
        size = (setup.train.batch_size, 1, *setup.latent_shape)
        image = jax.ShapeDtypeStruct(size, jnp.float32, sharding=over_data(mesh))
    before = like.stream if chunk.start else None
    arguments = (getattr(like, who), other.params, frozen, before, batch_of(setup, mesh), image)
    return Program(f"{who}'s turn", program, (*arguments, *numbers(mesh)), mesh)


def regression(setup: Setup, mesh) -> Program:
    """One update by flow matching or ODE regression."""
    like = train_state.abstract_state(setup, mesh).generator
    base = train_state.abstract_frozen(setup, mesh).get("generator")
    key, _, step = numbers(mesh)
    arguments = (like, base, batch_of(setup, mesh), key, step)
    return Program(f"{setup.train.stage} update", regressing(setup.recipe, like), arguments, mesh)


def batch_of(setup: Setup, mesh) -> Batch:
    """Shapes and places of what a turn sees."""
    train, place = setup.train, over_data(mesh)
    size = (train.batch_size, setup.network.text_length, setup.network.text_width)
    text = jax.ShapeDtypeStruct(size, setup.models.dtype, sharding=place)
    video = (train.frames, *setup.latent_shape)
    if train.distils:
        return Batch((text,) * (2 if train.stage == "streaming" else 1), text)
    points = (len(setup.rollout.steps) + 1,) if train.stage == "ode" else ()
    shape = (train.batch_size, *points, *video)
    array = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
    return Batch((text,), **{"path" if train.stage == "ode" else "clean": array})


def numbers(mesh) -> tuple:
    """Key, exit step and update."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    number = jax.ShapeDtypeStruct((), jnp.int32)
    return abstract((key, number, number), replicated(mesh))
