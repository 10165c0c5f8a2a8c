"""From projected points to polygons on the screen: thick lines, triangles, their depth and colour.

Screen positions are pixels, depths metres. Depth and colour are linear over the screen; colours
fade to black at 200 m (cosmos-transfer2.5, `world_scenario/utils/shader_utils.py`).
"""

import numpy as np

from jaxvid.scenario.palette import DEPTH_MAX
from jaxvid.scenario.raster import SUBPIXELS, Polygons

OUTSIDE = 1e6  # pixels; farther corners are moved here
CAP_STEPS = 8  # straight sides of the half circle at each end of a line
CAP_ANGLES = np.pi * (np.arange(CAP_STEPS + 1) / CAP_STEPS - 0.5)
CAPS = np.concatenate([CAP_ANGLES, CAP_ANGLES + np.pi])  # first the far end, then the near one


def fade(depth) -> np.ndarray:
    """The share of a colour, or of a line's width, that is left at `depth` metres."""
    return np.clip(1 - np.asarray(depth, np.float64) / DEPTH_MAX, 0, 1)


def thick_lines(uv, depth, widths, colors, order, height: int, width: int) -> Polygons:
    """Segments with round ends, as polygons of 18 corners.

    Args:
      uv: (n, 2, 2) pixels; depth: (n, 2); the two ends of each segment.
      widths: (n,) pixels of an upright line at depth 0; colors: (n, 3), 0..255.
      order: (n,) places in the order of drawing.
      height, width: of the image; lines are thick in a square that is stretched to it, so that
        level lines are thinner than upright ones by height / width.
    """
    uv, depth = np.asarray(uv, np.float64), np.asarray(depth, np.float64)
    to_square = np.array([1 / width, 1 / height])
    steps = (uv[:, 1] - uv[:, 0]) * to_square
    lengths = np.linalg.norm(steps, axis=1)
    radii = widths / width / 2 * fade(depth.mean(axis=1))
    kept = (lengths > 0) & (radii > 0)
    uv, depth, colors, lengths = uv[kept], depth[kept], colors[kept], lengths[kept]
    x, y = (steps[kept] / lengths[:, None]).T[:, :, None]
    cos, sin = np.cos(CAPS), np.sin(CAPS)
    turned = np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1)
    ends = np.repeat(uv[:, ::-1], CAP_STEPS + 1, axis=1)
    corners = ends + turned * radii[kept, None, None] / to_square
    slopes = np.stack([x, y], axis=-1)[:, 0] * to_square / lengths[:, None]
    along = np.concatenate([-(slopes * uv[:, 0]).sum(-1, keepdims=True), slopes], axis=1)
    values = channels(depth, colors[:, None])
    first, change = values[:, 0], values[:, 1] - values[:, 0]
    planes = change[:, :, None] * along[:, None]
    planes[:, :, 0] += first
    return polygons(corners, planes, np.sort(values, axis=1).swapaxes(1, 2), order[kept])


def triangles(uv, depth, colors, order) -> Polygons:
    """uv: (n, 3, 2) pixels; depth: (n, 3); colors: (n, 3 or 1, 3), 0..255; order: (n,)."""
    uv, values = np.asarray(uv, np.float64), channels(np.asarray(depth, np.float64), colors)
    area = cross(uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0])
    kept = np.flatnonzero(area)
    uv, values, area = uv[kept], values[kept], area[kept]
    (ax, ay), (bx, by) = ((uv[:, i] - uv[:, 0]).T for i in (1, 2))
    a, b = (values[:, i] - values[:, 0] for i in (1, 2))
    slope_x = (a * by[:, None] - b * ay[:, None]) / area[:, None]
    slope_y = (b * ax[:, None] - a * bx[:, None]) / area[:, None]
    base = values[:, 0] - slope_x * uv[:, :1, 0] - slope_y * uv[:, :1, 1]
    limits = np.tile([0.0, 1.0], (len(uv), 4, 1))
    limits[:, 0] = np.stack([values[:, :, 0].min(axis=1), values[:, :, 0].max(axis=1)], axis=1)
    return polygons(uv, np.stack([base, slope_x, slope_y], axis=-1), limits, order[kept])


def polygons(corners, planes, limits, order) -> Polygons:
    """corners: (n, k, 2) pixels, snapped here; the rest as in `Polygons`."""
    n, k = corners.shape[:2]
    snapped = np.rint(np.clip(corners, -OUTSIDE, OUTSIDE) * SUBPIXELS).astype(np.int32)
    return Polygons(snapped.reshape(-1, 2), np.arange(n) * k, np.full(n, k), planes, limits, order)


def gather(groups: list[Polygons]) -> Polygons:
    """All polygons of several groups, sorted by their places in the order of drawing."""
    offsets = np.cumsum([0, *(len(group.corners) for group in groups)])[:-1]
    groups = [g._replace(starts=g.starts + o) for g, o in zip(groups, offsets, strict=True)]
    merged = Polygons(*(np.concatenate(arrays) for arrays in zip(*groups, strict=True)))
    sequence = np.argsort(merged.order)
    return Polygons(merged.corners, *(array[sequence] for array in merged[1:]))


def channels(depth, colors) -> np.ndarray:
    """depth: (n, k); colors: (n, k or 1, 3). Returns (n, k, 4): depth share, faded red, ..."""
    faded = colors / 255 * fade(depth)[:, :, None]
    return np.concatenate([depth[:, :, None] / DEPTH_MAX, faded], axis=2)


def cross(a, b) -> np.ndarray:
    """(n,) of vectors (n, 2) on the screen."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
