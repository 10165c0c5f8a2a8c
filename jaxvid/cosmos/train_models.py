"""Parameters that a training run starts from, each array in its type and place."""

import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvid.core import checkpoint, distributed
from jaxvid.core.convert import to_ours
from jaxvid.core.mesh import shardings
from jaxvid.core.random_tree import draw
from jaxvid.cosmos import files, keys, losses, model, networks, train
from jaxvid.cosmos.train_setup import Setup, is_base


def abstract_parameters(setup: Setup, mesh) -> dict:
    """Types and places of the network's parameters: what is trained in float32."""
    shapes = flatten_dict(model.abstract_parameters(setup.network), sep="/")
    fine = flatten_dict(_trained(setup, unflatten_dict(shapes, sep="/")), sep="/")
    types = {
        name: "float32" if name in fine else train.type_of(setup.network, name) for name in shapes
    }
    typed = {name: jax.ShapeDtypeStruct(a.shape, types[name]) for name, a in shapes.items()}
    typed = unflatten_dict(typed, sep="/")
    return jax.tree.map(
        lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place),
        typed,
        shardings(typed, train.RULES, mesh),
    )


def _trained(setup: Setup, params: Mapping) -> dict:
    part = setup.train.part
    return {} if part == "lora" else dict(params) if part == "all" else losses.split(params)[0]


def load(setup: Setup, mesh) -> dict:
    """The network's parameters; a control branch is made of the base's blocks if that is asked."""
    like = abstract_parameters(setup, mesh)
    places = jax.tree.map(lambda a: a.sharding, like)
    path = Path(setup.models.transformer).expanduser()
    if setup.models.random:
        params = _cast(_drawn(setup, places), like)
    elif networks.is_ours(path):
        params = checkpoint.restore(path, like)
    else:
        found = _from_file(setup, path)
        cast = jax.tree.map(lambda a, b: np.asarray(a, b.dtype), found, like)
        params = distributed.place(cast, places)
    if setup.train.control == "kept":
        return params
    begin = functools.partial(model.control_from_base, setup.network)
    return jax.jit(lambda p: _cast(begin(p), like), out_shardings=places, donate_argnums=0)(params)


def _cast(params, like):
    return jax.tree.map(lambda a, b: a.astype(b.dtype), params, like)


def _drawn(setup: Setup, places) -> dict:
    """The random network that sampling has with the same settings."""
    abstract = model.abstract_parameters(setup.network)
    return draw(abstract, setup.models.random_seed, setup.models.dtype, places)


def _fresh(setup: Setup) -> dict:
    """Parameters as upstream initialises them."""
    return model.initial_parameters(setup.network, jax.random.key(setup.models.random_seed))


def _from_file(setup: Setup, path: Path) -> dict:
    """Parameters of upstream's file; of a base, with a fresh control branch."""
    if not is_base(setup.models):
        return files.read_network(path, networks.settings_of(setup.models))[0]
    control = jax.jit(lambda: losses.split(_fresh(setup))[0])()
    whole = to_ours(keys.network_tensors(files.read(path)), keys.RULES)
    whole |= jax.tree.map(np.asarray, control)
    found, expected = (
        {name: a.shape for name, a in flatten_dict(tree, sep="/").items()}
        for tree in (whole, model.abstract_parameters(setup.network))
    )
    if wrong := sorted(set(found.items()) ^ set(expected.items())):
        raise ValueError(
            f"models.transformer={path} is no base of config.network: they differ in "
            f"{len({name for name, _ in wrong})} parameters, e.g. {wrong[0][0]}"
        )
    return whole
