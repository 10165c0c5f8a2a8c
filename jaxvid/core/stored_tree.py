"""Trees as nested dicts of plain arrays, the form in which checkpoints store them, and back."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np


def named(tree) -> list[tuple[tuple[str, ...], object]]:
    """Leaves with their names; named tuples and dicts give field names, sequences numbers."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(tuple(jax.tree_util.keystr((key,), simple=True) for key in p), x) for p, x in paths]


def nest(leaves: dict) -> dict:
    """The inverse of `named`, as nested dicts; raises ValueError if Orbax would mix two names."""
    if len({".".join(name) for name in leaves}) < len(leaves):  # Orbax joins names by dots
        raise ValueError("two leaves have the same name once joined by dots: rename one")
    tree = {}
    for name, leaf in leaves.items():
        inner = tree
        for key in name[:-1]:
            inner = inner.setdefault(key, {})
        inner[name[-1]] = leaf
    return tree


def is_key(leaf) -> bool:
    return jnp.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key)


def encode(name, leaf):
    """The array that Orbax stores for a leaf."""
    if is_key(leaf):
        return jax.random.key_data(leaf)
    if not isinstance(leaf, jax.Array):
        leaf = np.asarray(leaf)
        if leaf.dtype.kind in "OUSMm":
            raise ValueError(f"{'/'.join(name)} is no number: text and settings belong in info")
    if math.prod(leaf.shape) == 0:
        raise ValueError(f"{'/'.join(name)} has shape {leaf.shape}: empty arrays cannot be saved")
    return leaf


def host(leaf) -> np.ndarray:
    """Stands for a numpy array to be read, without its memory."""
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def abstract(leaf):
    """Stands for the array to be read, so that `decode` can make the like of `leaf` of it."""
    sharding = getattr(leaf, "sharding", None)
    if isinstance(leaf, jax.Array) and not leaf.committed:
        sharding = None
    if is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    if sharding is not None:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return host(leaf if hasattr(leaf, "dtype") else np.asarray(leaf))


def decode(array, leaf):
    """Turns the array that was read into the kind of `leaf`."""
    if is_key(leaf):
        impl = []
        jax.eval_shape(lambda key: impl.append(jax.random.key_impl(key)), leaf)
        placed = leaf.sharding if isinstance(array, jax.Array) else None
        wrap = functools.partial(jax.random.wrap_key_data, impl=impl[0])
        return jax.jit(wrap, out_shardings=placed)(array)
    if isinstance(leaf, bool | int | float | np.generic):
        return type(leaf)(array[()])
    if isinstance(leaf, np.ndarray) or isinstance(array, jax.Array):
        return array
    return jnp.asarray(array)
