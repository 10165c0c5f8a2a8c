"""Pictures of all views at once; a view that is not there leaves its place black."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxvid.core.views import IDS

SIDE = 3  # rows and columns of upstream's grid
AROUND = {  # views as they look around the vehicle, by their number; upstream's multi-run tool
    tuple(range(7)): (5, 0, 6, 1, 4, 3, 2),
    tuple(range(6)): (5, 0, 1, 4, 3, 2),
}


def square_grid(frames: np.ndarray) -> np.ndarray:
    """(v, t, h, w, c) of up to 9 views to (t, 3h, 3w, c), row by row in the order of the views."""
    if len(frames) > SIDE**2:
        raise ValueError(f"{len(frames)} views do not fit a grid of {SIDE}x{SIDE}")
    empty = np.zeros((SIDE**2 - len(frames), *frames.shape[1:]), frames.dtype)
    return _tiles(np.concatenate([frames, empty]), SIDE)


def around_grid(frames: np.ndarray, views: Sequence[int]) -> np.ndarray:
    """(v, t, h, w, c) to (t, 2h, ceil(v / 2) w, c): two rows, the shorter one below, centred.

    views: ids; all seven, or all but front_tele, are laid out as they look around the vehicle,
    others in their order.
    """
    order = AROUND.get(tuple(views), range(len(frames)))
    frames = frames[list(order)]
    columns = -(-len(frames) // 2)
    rows = [_tiles(row, len(row)) for row in (frames[:columns], frames[columns:]) if len(row)]
    width = rows[0].shape[2]
    return np.concatenate([_centred(row, width) for row in rows], axis=1)


def with_controls(frames: np.ndarray, controls: np.ndarray, views: Sequence[int]) -> np.ndarray:
    """The controls above, the generated frames below; see around_grid."""
    return np.concatenate([around_grid(a, views) for a in (controls, frames)], axis=1)


def truncated(frames: jax.Array) -> jax.Array:
    """Floats in [0, 1] to uint8 as upstream writes them: floor(255 y), computed in their type."""
    levels = jnp.clip(frames, 0, 1) * jnp.asarray(255, frames.dtype)
    return rounded(levels).astype(jnp.uint8)


def rounded(x: jax.Array) -> jax.Array:
    """x as its type holds it; else a compiled program keeps more digits between its steps."""
    kind = jnp.finfo(x.dtype)
    return jax.lax.reduce_precision(x, kind.nexp, kind.nmant)


def _tiles(frames: np.ndarray, columns: int) -> np.ndarray:
    return rearrange(frames, "(r k) t h w c -> t (r h) (k w) c", k=columns)


def _centred(band: np.ndarray, width: int) -> np.ndarray:
    left = (width - band.shape[2]) // 2
    sides = (left, width - band.shape[2] - left)
    return np.pad(band, ((0, 0), (0, 0), sides, (0, 0)))


def file_names(stem: str, views: Sequence[str], files: Sequence[str]) -> dict[str, str]:
    """Output name to file, named as upstream names them.

    Args:
      stem: `name` of the sample, after a folder if any.
      views: their names.
      files: of "combined", "views", "grid" and "control_grid".
    """
    found = {"arguments": f"{stem}.json"}
    if "combined" in files:
        found["combined"] = f"{stem}.mp4"
    if "views" in files:
        found |= {view: f"{stem}_{view}.mp4" for view in sorted(views, key=IDS.get)}
    for grid in ("grid", "control_grid"):
        if grid in files:
            found[grid] = f"{stem}_{grid}.mp4"
    return found
