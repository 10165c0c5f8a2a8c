"""Random parameters for the metric networks, scaled so that activations keep their size."""

import jax
import numpy as np


def random_params(shapes, seed=0):
    """shapes: pytree of ShapeDtypeStruct; numpy, since Flax compiles each initialiser."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        if leaf.ndim > 1 and "head" not in name:
            fan_in = np.prod(leaf.shape[:-1])
            values = rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in)
        elif "bias" in name or "mean" in name:
            values = 0.1 * rng.normal(size=leaf.shape)
        else:  # scales, variances and LPIPS heads are positive
            values = rng.uniform(0.5, 1.5, size=leaf.shape)
        return values.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)
