"""A software rasteriser: convex polygons into an image, with depth and four samples per pixel.

It follows the rules of OpenGL as Mesa implements them: corners snapped to 1/256 pixel, samples on
a left or top side inside and on a right or bottom side outside, 24-bit depth where the first of
equals wins, one colour per polygon and pixel (at the pixel's centre), the mean over the samples.
Depth and colour change linearly over the screen, not in perspective.

The loops over pixels are compiled by numba, which keeps the machine code on disk.
"""

from typing import NamedTuple

import numba
import numpy as np

SUBPIXELS = 256
FAR = 2**24 - 1  # the depth of the background, and of 200 m
NOBODY = -1
SAMPLES = {  # (x, y) in 1/256 pixel from the upper left corner of the pixel
    1: ((128, 128),),
    4: ((96, 224), (224, 160), (32, 96), (160, 32)),
}


def compiled(function):
    """Compiles for one thread; what is compiled is kept where numba finds a writable folder."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(function, cache=True, **options)
    except RuntimeError:  # no such folder, as in a read-only container
        return numba.njit(function, **options)


class Polygons(NamedTuple):
    """Convex polygons in the order of drawing.

    A channel (depth / 200 m, red, green, blue, each 0..1) has at pixel position (x, y) the value
    clip(plane[0] + plane[1] * x + plane[2] * y, *limits).
    """

    corners: np.ndarray  # (m, 2) int32 x, y in 1/256 pixel
    starts: np.ndarray  # (n,) int64, where the corners of each polygon start
    counts: np.ndarray  # (n,) int64, how many it has
    planes: np.ndarray  # (n, 4, 3) float64
    limits: np.ndarray  # (n, 4, 2) float64
    order: np.ndarray  # (n,) int64, ascending: places in the order of drawing


class Canvas:
    """Draws images of one size, one after the other; the buffers are kept in between."""

    def __init__(self, height: int, width: int, samples: int = 4):
        """Raises ValueError for a size below 1 or another number of samples than 1 or 4."""
        if samples not in SAMPLES:
            raise ValueError(f"samples={samples} per pixel: use one of {sorted(SAMPLES)}")
        if min(height, width) < 1:
            raise ValueError(f"an image of {height}x{width} has no pixels; use 1x1 or more")
        self.samples = np.array(SAMPLES[samples], np.int64)
        self.depth = np.empty((height, samples, width), np.int32)
        self.owner = np.empty((height, samples, width), np.int32)

    def draw(self, polygons: Polygons) -> np.ndarray:
        """Returns uint8 (h, w, 3), black where no polygon is."""
        height, _, width = self.depth.shape
        self.depth.fill(FAR)
        self.owner.fill(NOBODY)
        _cover(self.depth, self.owner, self.samples, *polygons[:-1])
        image = np.zeros((height, width, 3), np.uint8)
        _shade(image, self.owner, polygons.planes, polygons.limits)
        return image


@compiled
def _cover(depth, owner, samples, corners, starts, counts, planes, limits):
    """Finds for each sample the nearest polygon: `depth` and `owner`, both (h, samples, w)."""
    height, n_samples, width = depth.shape
    left, right = np.empty(height, np.int64), np.empty(height, np.int64)
    for p in range(len(starts)):
        outline = corners[starts[p] : starts[p] + counts[p]]
        base, slope_x, slope_y = planes[p, 0, 0], planes[p, 0, 1], planes[p, 0, 2]
        low, high = limits[p, 0, 0], limits[p, 0, 1]
        for s in range(n_samples):
            x, y = samples[s, 0], samples[s, 1]
            top, bottom = _spans(outline, x, y, left, right, height, width)
            for row in range(top, bottom):
                start = base + slope_x * (x / SUBPIXELS) + slope_y * (row + y / SUBPIXELS)
                line, owners = depth[row, s], owner[row, s]
                for column in range(left[row], right[row]):
                    z = min(max(start + slope_x * column, low), high)
                    level = np.int32(min(z, 1.0) * FAR + 0.5) if z >= 0 else np.int32(FAR)
                    if level < line[column]:
                        line[column] = level
                        owners[column] = p


@compiled
def _spans(outline, x, y, left, right, height, width):
    """Columns left <= c < right inside the outline, in each of the rows top <= r < bottom.

    (x, y): the sample's place in the pixel, in 1/256 pixel. Returns (top, bottom).
    """
    top = max(_up(outline[:, 1].min() - y), 0)
    bottom = min(_up(outline[:, 1].max() - y), height)
    for row in range(top, bottom):
        left[row], right[row] = width, 0
    for i in range(len(outline)):
        x0, y0 = outline[i - 1, 0], outline[i - 1, 1]
        x1, y1 = outline[i, 0], outline[i, 1]
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        first, last = max(_up(y0 - y), top), min(_up(y1 - y), bottom)
        if first >= last:
            continue
        slope = (x1 - x0) / (y1 - y0)
        at_zero = (x0 - x + (y - y0) * slope) / SUBPIXELS
        for row in range(first, last):
            column = np.int64(np.ceil(min(max(at_zero + row * slope, -1.0), width + 1.0)))
            left[row] = min(left[row], max(column, 0))
            right[row] = max(right[row], min(column, width))
    return top, bottom


@compiled
def _up(distance):
    """The first whole pixel at or after a distance in 1/256 pixel."""
    return -((-np.int64(distance)) // SUBPIXELS)


@compiled
def _shade(image, owner, planes, limits):
    """Gives each pixel the mean colour of its samples, rounded half up."""
    height, n_samples, width = owner.shape
    for row in range(height):
        for column in range(width):
            red, green, blue, r, g, b, last = 0, 0, 0, 0, 0, 0, NOBODY
            for s in range(n_samples):
                p = owner[row, s, column]
                if p == NOBODY:
                    continue
                if p != last:
                    r = _level(planes, limits, p, 1, column, row)
                    g = _level(planes, limits, p, 2, column, row)
                    b = _level(planes, limits, p, 3, column, row)
                    last = p
                red, green, blue = red + r, green + g, blue + b
            if last != NOBODY:
                half = n_samples // 2
                image[row, column, 0] = (red + half) // n_samples
                image[row, column, 1] = (green + half) // n_samples
                image[row, column, 2] = (blue + half) // n_samples


@compiled
def _level(planes, limits, p, channel, column, row):
    """The colour of polygon p at the centre of a pixel, 0..255."""
    base, slope_x, slope_y = planes[p, channel]
    value = base + slope_x * (column + 0.5) + slope_y * (row + 0.5)
    return np.int64(min(max(value, limits[p, channel, 0]), limits[p, channel, 1]) * 255 + 0.5)
