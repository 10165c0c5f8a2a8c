"""A raycaster for mazes of unit blocks, in plain NumPy over all frames and columns at once.

The plane is divided into unit blocks, solid or open. Walls are one unit high and the eye is half
way up, so each image column needs one distance only. World axes: x right, y up, heading
counter-clockwise from x, in radians.
"""

import dataclasses

import numpy as np

from jaxvid.data.wall_patterns import SIDE, coarser

LEVELS = 5  # texture copies, each half as fine as the one before
FIELD_OF_VIEW = np.deg2rad(80.0)  # horizontal and vertical
FOG_DISTANCE = 9.0  # blocks over which colours lose 63 % to the haze
FRAMES_AT_ONCE = 16  # keeps the working set in cache


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """What there is to see. Colours are RGB in [0, 1]."""

    solid: np.ndarray  # (x, y) bool, True where a block is; the border is solid
    styles: np.ndarray  # (x, y) int, for open blocks: the texture of the walls around
    textures: np.ndarray  # (styles, u, v, 3) float32
    floor: np.ndarray  # (2, 3) the two colours of the floor tiles
    sky: np.ndarray  # (2, 3) zenith and horizon; the horizon is also the haze
    sun: float  # heading at which the sky is brightest, radians


def render(scene: Scene, poses: np.ndarray, size: int) -> np.ndarray:
    """Renders what a camera at each pose sees.

    Args:
      poses: (t, 3) x and y in blocks, inside open blocks, and the heading in radians.
      size: rows and columns of the images.
    Returns:
      (t, size, size, 3) uint8.
    """
    levels = coarser(scene.textures, LEVELS)
    parts = [
        _render_part(scene, levels, poses[start : start + FRAMES_AT_ONCE], size)
        for start in range(0, len(poses), FRAMES_AT_ONCE)
    ]
    return np.concatenate(parts)


def _render_part(scene, levels, poses, size):
    n = 2 * size  # two rays per pixel, both ways
    slopes = ((np.arange(n) + 0.5) / n * 2 - 1) * np.tan(FIELD_OF_VIEW / 2)
    x, y, heading = np.asarray(poses, np.float64).T[:, :, None]  # each (t, 1)
    dx = np.cos(heading) + slopes * np.sin(heading)  # (t, w); as long as 1 along the heading,
    dy = np.sin(heading) - slopes * np.cos(heading)  # so distances are depths, without a fisheye
    hit = cast(scene.solid, np.broadcast_to(x, dx.shape), np.broadcast_to(y, dx.shape), dx, dy)
    slopes, dx, dy = (a.astype(np.float32) for a in (slopes, dx, dy))
    walls, heights = _walls(scene, levels, hit, slopes, size)
    sky = _sky(scene, np.arctan2(dy, dx), slopes[: n // 2])
    floor = _floor(scene, x, y, dx, dy, slopes[n // 2 :])
    image = np.concatenate([sky, floor], axis=1)  # (t, h, w, 3)
    is_wall = (heights >= 0) & (heights < 1)
    np.copyto(image, walls, where=is_wall[..., None])
    rows = image[:, 0::2] + image[:, 1::2]
    image = (rows[:, :, 0::2] + rows[:, :, 1::2]) / 4  # (t, size, size, 3)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


@dataclasses.dataclass(frozen=True, eq=False)
class Hit:
    """Where rays first meet a wall; all arrays have the rays' shape."""

    depth: np.ndarray  # in units of the ray's direction vector
    along: np.ndarray  # position on the wall face, [0, 1)
    vertical: np.ndarray  # True where the face is crossed in x
    block: tuple[np.ndarray, np.ndarray]  # the open block in front of the wall


def cast(solid, x, y, dx, dy) -> Hit:
    """Follows rays from (x, y) along (dx, dy) from block to block until a solid one.

    All arrays have one shape. The walk is that of Amanatides and Woo, "A fast voxel traversal
    algorithm for ray tracing" (1987), for all rays together.
    """
    shape = x.shape
    x, y, dx, dy = (a.ravel() for a in (x, y, dx, dy))
    dx, dy = (np.where(np.abs(d) < 1e-9, 1e-9, d) for d in (dx, dy))
    i, j = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    step_i, step_j = np.sign(dx).astype(np.int64), np.sign(dy).astype(np.int64)
    next_x, next_y = (i + (dx > 0) - x) / dx, (j + (dy > 0) - y) / dy  # depths of the next borders
    depth, vertical = np.zeros_like(x), np.zeros(x.shape, bool)
    front_i, front_j = i.copy(), j.copy()
    going = np.arange(len(x))
    while len(going):
        crosses_x = next_x[going] < next_y[going]
        front_i[going], front_j[going], vertical[going] = i[going], j[going], crosses_x
        depth[going] = np.where(crosses_x, next_x[going], next_y[going])
        in_x, in_y = going[crosses_x], going[~crosses_x]
        i[in_x] += step_i[in_x]
        j[in_y] += step_j[in_y]
        next_x[in_x] += np.abs(1 / dx[in_x])
        next_y[in_y] += np.abs(1 / dy[in_y])
        going = going[~solid[i[going], j[going]]]
    along = np.where(vertical, y + depth * dy, x + depth * dx) % 1
    depth, along, vertical, front_i, front_j = (
        a.reshape(shape) for a in (depth, along, vertical, front_i, front_j)
    )
    return Hit(depth, along, vertical, (front_i, front_j))


def _walls(scene, levels, hit, slopes, size):
    """Wall colours (t, h, w, 3) for every pixel, and the heights v (t, h, w) they were taken at."""
    depth = np.maximum(hit.depth, 1e-3).astype(np.float32)
    texels_per_pixel = SIDE * depth * (2 * np.tan(FIELD_OF_VIEW / 2) / size)
    level = np.clip(np.log2(texels_per_pixel), 0, LEVELS - 1).astype(np.int32)
    style = scene.styles[hit.block].astype(np.int32)
    u = np.minimum(hit.along * SIDE, SIDE - 1).astype(np.int32)  # along may round up to 1
    column = ((level * len(scene.textures) + style) * SIDE + u) * SIDE
    heights = 0.5 + slopes[:, None] * depth[:, None]  # (t, h, w), 0 at the top of the wall, 1 below
    v = np.clip(heights * SIDE, 0, SIDE - 1).astype(np.int32)
    colours = levels.reshape(-1, 3)[column[:, None] + v]
    haze = 1 - np.exp(-depth / FOG_DISTANCE)
    light = (1 - haze) * np.where(hit.vertical, np.float32(1), np.float32(0.82))  # two tones
    colours *= light[:, None, :, None]
    colours += (haze[..., None] * scene.sky[1])[:, None]
    return colours, heights


def _sky(scene, angles, slopes):
    """(t, h, w, 3) from zenith to horizon, brighter towards the sun; angles (t, w)."""
    up = (slopes / slopes[0])[:, None]  # 1 at the top row, 0 at the horizon
    gradient = scene.sky[1] + (scene.sky[0] - scene.sky[1]) * up**0.7  # (h, 3)
    glow = 1 + 0.12 * np.cos(angles - np.float32(scene.sun))  # (t, w)
    return gradient[None, :, None] * glow[:, None, :, None].astype(np.float32)


def _floor(scene, x, y, dx, dy, slopes):
    """(t, h, w, 3): soft tiles, one to a block, that fade into the haze."""
    depth = (0.5 / slopes)[None, :, None]  # (1, h, 1)
    across = np.cos(np.pi * (x[:, None].astype(np.float32) + depth * dx[:, None]))
    along = np.cos(np.pi * (y[:, None].astype(np.float32) + depth * dy[:, None]))
    contrast = np.minimum(1, 3 / depth)  # far tiles are smaller than a pixel
    tile = 0.5 + 0.5 * contrast * np.tanh(4 * across * along)
    haze = 1 - np.exp(-depth / FOG_DISTANCE)
    tile, first, second = tile[..., None], scene.floor[0], scene.floor[1]
    base = first * (1 - haze)[..., None] + scene.sky[1] * haze[..., None]
    return base + tile * ((second - first) * (1 - haze)[..., None])
