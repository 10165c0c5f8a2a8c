"""The device mesh, and where parameters and activations live on it."""

import dataclasses
import math
import re
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "view", "seq", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis: 1 switches an axis off, -1 (at most once) takes what is left."""

    data: int = -1
    view: int = 1
    seq: int = 1
    tensor: int = 1

    def __post_init__(self):
        sizes = dataclasses.asdict(self)
        if bad := {axis: n for axis, n in sizes.items() if n < 1 and n != -1}:
            raise ValueError(f"mesh sizes {bad} must be positive, or -1 for what is left")
        if list(sizes.values()).count(-1) > 1:
            raise ValueError(f"mesh {sizes}: only one axis can be -1")


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of all `devices` (default: every device of the run) over the axes AXES.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = [getattr(config, axis) for axis in AXES]
    fixed = math.prod(n for n in sizes if n != -1)
    sizes = [len(devices) // fixed if n == -1 else n for n in sizes]
    if math.prod(sizes) != len(devices):
        wanted = " x ".join(f"{axis}={n}" for axis, n in zip(AXES, sizes, strict=True))
        raise ValueError(f"mesh {wanted} does not use exactly the {len(devices)} devices there are")
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def constrain(x, *spec):
    """Fixes how `x` is split; without a mesh it does nothing, so models also run unsharded."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, P(*spec))


def axis_size(axis: str) -> int:
    """Devices along an axis of the mesh in use, 1 without a mesh."""
    return jax.sharding.get_abstract_mesh().shape.get(axis, 1)


def shardings(tree, rules: Sequence[tuple[str, P]], mesh: Mesh):
    """A NamedSharding for each leaf: the first rule whose pattern matches the leaf's path.

    Args:
      tree: pytree of arrays or jax.ShapeDtypeStruct.
      rules: (pattern, PartitionSpec); patterns match the whole path, such as "blocks/q/kernel".
      mesh: the mesh of the specs.
    Raises:
      ValueError: no rule matches, or a split axis does not divide by its devices.
    """

    def of(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, spec in rules:
            if re.fullmatch(pattern, name):
                return _checked(name, leaf, NamedSharding(mesh, spec))
        raise ValueError(f"no sharding rule matches the parameter {name}")

    return jax.tree_util.tree_map_with_path(of, tree)


def _checked(name: str, leaf, sharding: NamedSharding) -> NamedSharding:
    try:
        sharding.shard_shape(leaf.shape)
    except ValueError as error:
        raise ValueError(
            f"{name} {leaf.shape} cannot be split as {sharding.spec}: {error}"
        ) from None
    return sharding


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, P())


def over_data(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: its first axis over `data`."""
    return NamedSharding(mesh, P("data"))
