"""Random parameters for tests, drawn by NumPy: to compile JAX's generators takes seconds."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core.random_tree import draw


def everywhere(abstract, spread: float):
    """Parameters of a usual size plus `spread` times normal numbers, so that no part is idle."""
    random = np.random.default_rng(0)
    params = draw(abstract, 0, "float32")
    return jax.tree.map(
        lambda a: jnp.asarray(a + spread * random.standard_normal(a.shape, np.float32)), params
    )


def random_like(tree, seed: int = 0):
    """Standard normal NumPy arrays of the same shapes and types."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda a: random.standard_normal(a.shape).astype(a.dtype), tree)
