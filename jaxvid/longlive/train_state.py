"""What a training run of LongLive keeps, where its parts live, and how it begins."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from jaxvid.core.fsdp import placed, spread
from jaxvid.core.mesh import over_data, replicated
from jaxvid.core.noise import SEEDS
from jaxvid.longlive import distillation, train_steps
from jaxvid.longlive import models as files
from jaxvid.longlive.distillation import Stream
from jaxvid.longlive.shapes import KEYS
from jaxvid.longlive.stream import Position
from jaxvid.longlive.train_setup import CRITIC, Setup
from jaxvid.longlive.train_steps import Learner
from jaxvid.wan import dit, dit_files
from jaxvid.wan.dit import KV, WanConfig
from jaxvid.wan.lora import LoraConfig, abstract_adapters, initial_adapters


class State(NamedTuple):
    """All that an update changes; {} for what the stage does without."""

    step: int
    generator: Learner
    critic: Learner | dict
    stream: Stream | dict
    position: Position


class Part(NamedTuple):
    """A network that learns, and where it comes from."""

    config: WanConfig
    lr: float
    adapters: bool
    average: bool
    fields: tuple[str, str]  # of `models`: the network's file, its adapters'
    names: tuple[tuple[str, ...], tuple[str, ...]]  # entries in these files
    seed: int  # of random parameters and fresh adapters


def parts(setup: Setup) -> dict[str, Part]:
    """The networks that learn, by their names in the state."""
    train, seed = setup.train, setup.models.random_seed
    average = bool(train.ema) and not train.lora_rank
    generator = Part(
        setup.network, train.lr, bool(setup.lora_scale), average,
        ("transformer", "lora"), ((), dit_files.LORAS), seed,
    )  # fmt: skip
    critic = Part(
        setup.critic, train.critic_lr, bool(setup.critic_scale), False,
        ("critic", "critic_lora"), (CRITIC, dit_files.CRITIC_LORAS), seed + 1,
    )  # fmt: skip
    return {"generator": generator, **({"critic": critic} if train.distils else {})}


def abstract_learner(setup: Setup, part: Part, mesh: Mesh) -> Learner:
    """Shapes and places."""
    params = dit.abstract_parameters(part.config)
    if part.adapters:
        params = abstract_adapters(params, LoraConfig(setup.train.lora_rank))
    start = functools.partial(train_steps.initial_learner, setup.train, part.lr)
    like = jax.eval_shape(functools.partial(start, average=part.average), params)
    return placed(like, spread(like, dit.RULES, mesh))


def abstract_stream(setup: Setup, mesh: Mesh) -> Stream:
    """Shapes and places."""
    recipe = setup.recipe
    like = jax.eval_shape(functools.partial(distillation.begin, recipe, setup.train.batch_size))
    keys = NamedSharding(mesh, KEYS)
    return placed(like, Stream(KV(keys, keys), over_data(mesh), replicated(mesh)))


def abstract_state(setup: Setup, mesh: Mesh) -> State:
    """Shapes and places of arrays; numbers as they are."""
    learners = {
        name: abstract_learner(setup, part, mesh) for name, part in parts(setup).items()
    }  # fmt: skip
    stream = abstract_stream(setup, mesh) if setup.train.stage == "streaming" else {}
    return State(0, learners["generator"], learners.get("critic", {}), stream, Position())


def initial_state(setup: Setup, mesh: Mesh) -> State:
    """Networks from their files, or drawn; nothing has been made yet."""
    like = abstract_state(setup, mesh)
    learners = {}
    for name, part in parts(setup).items():
        wanted = getattr(like, name)
        params = _start(setup, part, wanted.params)
        start = functools.partial(
            train_steps.initial_learner, setup.train, part.lr, average=part.average
        )
        learners[name] = jax.jit(start, out_shardings=_places(wanted))(params)
    state = like._replace(**learners)
    if like.stream:
        begin = functools.partial(distillation.begin, setup.recipe, setup.train.batch_size)
        state = state._replace(stream=jax.jit(begin, out_shardings=_places(like.stream))())
    return state


def places_of(like, mesh: Mesh):
    """Where arrays of networks that learn live, from their shapes."""
    return spread(like, dit.RULES, mesh)


def _places(like):
    return jax.tree.map(lambda a: a.sharding, like)


def _start(setup: Setup, part: Part, like: dict) -> dict:
    """What learns, float32: a network, or adapters from a file or fresh."""
    places = _places(like)
    if not part.adapters:
        return read(setup, part, "float32", places)
    if getattr(setup.models, part.fields[1]):
        found, _ = files.read_lora(setup.models, part.config, part.fields[1], part.names[1])
        return jax.device_put(jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), found), places)
    params = dit.abstract_parameters(part.config)
    fresh = functools.partial(initial_adapters, params, LoraConfig(setup.train.lora_rank))
    return jax.jit(fresh, out_shardings=places)(jax.random.key(part.seed))


def read(setup: Setup, part: Part, dtype: str, places) -> dict:
    """The whole network of a part."""
    use_ema = setup.models.use_ema and part.fields[0] == "transformer"
    seed = part.seed % SEEDS  # the next ones of the largest
    models = dataclasses.replace(setup.models, lora="", use_ema=use_ema, random_seed=seed)
    return files.read_transformer(
        models, part.config, dtype, places, part.fields[0], part.names[0]
    )  # fmt: skip


def abstract_frozen(setup: Setup, mesh: Mesh) -> dict:
    """The networks that do not learn: the teacher, and those that adapters adapt."""
    found = {
        name: part.config for name, part in parts(setup).items() if part.adapters
    }  # fmt: skip
    if setup.train.distils:
        found["teacher"] = setup.teacher
    like = {
        name: jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, setup.models.dtype),
            dit.abstract_parameters(config),
        )
        for name, config in found.items()
    }
    return placed(like, spread(like, dit.RULES, mesh))


def load_frozen(setup: Setup, mesh: Mesh) -> dict:
    """Reads them."""
    teacher = Part(
        setup.teacher, 0.0, False, False, ("teacher", ""), ((), ()), setup.models.random_seed + 2
    )
    known = parts(setup) | {"teacher": teacher}
    return {
        name: read(setup, known[name], setup.models.dtype, _places(like))
        for name, like in abstract_frozen(setup, mesh).items()
    }
