"""Parameters drawn from a seed, for tests and for measuring speed without weights."""

import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core import distributed


def draw(abstract, seed: int, dtype: str, places=None, name: str = ""):
    """Parameters of the shapes of `abstract`: each array depends on the seed and its name only.

    Kernels keep the size of what goes through them, norms and biases change nothing. Under a name
    that ends in `blocks/` the first axis of a kernel counts layers.

    Args:
      places: a sharding for each array; None leaves numpy arrays.
      name: put before the names, to tell trees apart.
    """

    def one(path, leaf, place=None):
        where = f"{name}/{jax.tree_util.keystr(path, simple=True, separator='/')}"
        values = _values(where, leaf.shape, seed).astype(jnp.dtype(dtype))
        return values if place is None else distributed.place(values, place)

    return jax.tree_util.tree_map_with_path(one, abstract, *([] if places is None else [places]))


def _values(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    kind = name.rpartition("/")[2]
    if kind in ("scale", "bias"):
        return np.full(shape, float(kind == "scale"), np.float32)
    stacked = name.count("blocks/") and kind == "kernel"  # the first axis counts layers
    inputs = math.prod(shape[1 if stacked else 0 : -1])
    size = 1.0 if kind == "embedding" else inputs**-0.5
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return rng.standard_normal(shape, np.float32) * np.float32(size)
