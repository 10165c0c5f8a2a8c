"""Training state split over the data axis as well: FSDP, ZeRO stage 3 (arXiv:1910.02054)."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvid.core.mesh import shardings

SMALLEST = 2**16  # numbers; smaller arrays stay whole on every device


def spread(tree, rules: Sequence[tuple[str, P]], mesh: Mesh, smallest: int = SMALLEST):
    """As `mesh.shardings`; stacks of layers are split over `data` besides, where that divides them.

    These are the arrays under a name with "blocks/", whose first axis counts layers and stays whole
    since a loop goes over them. Parameters are gathered where they are used, a layer at a time;
    gradients, optimiser states and averages of parameters stay split. The rules have to match
    parameters wherever they are in the tree, such as r".*blocks/q/kernel".

    Args:
      tree: pytree of arrays or jax.ShapeDtypeStruct, such as a whole training state.
      smallest: numbers of one layer from which on an array is split.
    """
    devices = mesh.shape["data"]

    def of(path, leaf, base: NamedSharding):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = list(base.spec) + [None] * (leaf.ndim - len(base.spec))
        free = [
            axis
            for axis in range(1, leaf.ndim)
            if spec[axis] is None and leaf.shape[axis] % devices == 0
        ]
        small = math.prod(leaf.shape[1:]) < smallest
        if devices == 1 or "blocks/" not in name or small or not free:
            return base
        spec[max(free, key=lambda axis: leaf.shape[axis])] = "data"
        return NamedSharding(mesh, P(*spec))

    return jax.tree_util.tree_map_with_path(of, tree, shardings(tree, rules, mesh))


def placed(tree, places):
    """Shapes and types of a pytree with a sharding each, to restore or compile with."""
    return jax.tree.map(
        lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), tree, places
    )
