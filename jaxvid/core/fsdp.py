"""Training state split over the data axis as well: FSDP, ZeRO stage 3 (arXiv:1910.02054)."""

import math
from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvid.core.mesh import shardings

SMALLEST = 2**16  # numbers; smaller arrays stay whole on every device


def spread(tree, rules: Sequence[tuple[str, P]], mesh: Mesh, smallest: int = SMALLEST):
    """As `mesh.shardings`, and arrays are split over `data` besides, where that divides them.

    Parameters are gathered where they are used, layer by layer; gradients, optimiser states and
    averages of parameters stay split. The rules have to match parameters wherever they are in the
    tree, such as r".*blocks/q/kernel". Under a name with "blocks/" the first axis counts layers,
    which are not split, as a loop goes over them.

    Args:
      tree: pytree of arrays or jax.ShapeDtypeStruct, such as a whole training state.
      smallest: numbers in the smallest array that is split.
    """
    devices = mesh.shape["data"]

    def of(path, leaf, base: NamedSharding):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        shape = leaf.shape
        spec = list(base.spec) + [None] * (len(shape) - len(base.spec))
        free = [
            axis
            for axis in range(1 if "blocks/" in name else 0, len(shape))
            if spec[axis] is None and shape[axis] % devices == 0
        ]
        if devices == 1 or math.prod(shape) < smallest or not free:
            return base
        spec[max(free, key=lambda axis: shape[axis])] = "data"
        return NamedSharding(mesh, P(*spec))

    return jax.tree_util.tree_map_with_path(of, tree, shardings(tree, rules, mesh))


def placed(tree, places):
    """Shapes and types of a pytree with a sharding each, to restore or compile with."""
    return jax.tree.map(
        lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), tree, places
    )
