"""Whether the devices of a mesh can share what LongLive computes."""

import math
from collections.abc import Iterable, Sequence

from jax.sharding import Mesh

from jaxvid.core.attention import SEQUENCE
from jaxvid.wan.dit import WanConfig


def check_split(
    mesh: Mesh, networks: Iterable[WanConfig], latent_shape: Sequence[int], frames: int
) -> None:
    """Raises ValueError if heads, or tokens of a pass, do not divide evenly over the devices.

    Args:
      networks: that work on the mesh.
      latent_shape: (h, w, ...) of a latent frame.
      frames: latent frames of a pass.
    """
    height, width = latent_shape[:2]
    for network in networks:
        _check(mesh, ("tensor",), network.heads, "heads of the transformer")
        tokens = math.prod(network.grid(frames, height, width))
        _check(mesh, SEQUENCE, tokens, f"tokens of {frames} latent frames {height}x{width}")


def _check(mesh: Mesh, axes: Sequence[str], size: int, what: str) -> None:
    parts = math.prod(mesh.shape[axis] for axis in axes)
    if size % parts:
        fit = max(n for n in range(1, parts) if size % n == 0)
        sizes = " * ".join(f"mesh.{axis}={mesh.shape[axis]}" for axis in axes)
        raise ValueError(f"{sizes} does not divide the {size} {what}: use a divisor, at most {fit}")
