"""What one camera sees at one frame: world points in, polygons on its image out."""

import dataclasses

import numpy as np

from jaxvid.scenario import palette
from jaxvid.scenario.camera import FTheta, to_camera
from jaxvid.scenario.geometry import LIGHT_FACES, Lines, corners_of
from jaxvid.scenario.interpolation import Boxes
from jaxvid.scenario.outlines import thick_lines, triangles
from jaxvid.scenario.raster import Polygons

FACES = np.array(  # of moving boxes, as corners in the order of `geometry.CORNER_SIGNS`
    [
        *((0, 1, 5), (0, 4, 5), (2, 3, 7), (2, 6, 7), (0, 2, 3), (0, 1, 2)),
        *((4, 6, 7), (4, 5, 6), (0, 4, 7), (0, 3, 7), (1, 5, 6), (1, 2, 6)),
    ]
)
EDGES = np.array(
    [
        *((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4)),
        *((0, 4), (1, 5), (2, 6), (3, 7)),
    ]
)
END = np.array([0, 0, 1, 1, 0, 0, 1, 1])  # which of the two colours a corner has: front, rear
PARTS = len(FACES) + len(EDGES)
REACH = 3.0  # metres, longer than any segment of a line
MERGED = 0.5  # pixels: what a line advances in smaller steps is drawn as one segment
WHOLE = 2**20  # parts of a pixel that distances along lines are counted in


@dataclasses.dataclass(frozen=True)
class View:
    """model: the camera at the size of the image; to_world: (4, 4) camera to world."""

    model: FTheta
    to_world: np.ndarray
    upstream: bool = False  # the look of v1.5, with its angles near the optical axis

    def project(self, points):
        """World points (..., 3) to pixels (..., 2) and depths (...)."""
        return self._onto_image(to_camera(points, self.to_world))

    def lines(self, lines: Lines, first: int) -> Polygons:
        """first: place of the first segment in the order of drawing, here and below."""
        points = to_camera(lines.points, self.to_world)
        depth = points[:, 2]
        near = np.flatnonzero((depth > -REACH) & (depth < palette.DEPTH_MAX + REACH))
        linked = lines.linked[near] & (np.diff(near, append=-1) == 1)
        uv, depth = self._onto_image(points[near])
        ends = np.stack(merge(uv, linked), axis=1)
        ends = ends[self._visible(uv[ends], depth[ends])]
        chosen = near[ends[:, 0]]
        widths, colors = lines.widths[chosen], lines.colors[chosen]
        return self._thick(uv[ends], depth[ends], widths, colors, first + chosen)

    def triangles(self, points, colors, first: int) -> Polygons:
        """points: (n, 3, 3) world; colors: (n, 3), 0..255."""
        uv, depth = self.project(points)
        order = first + np.arange(len(points))
        kept = self._visible(uv, depth)
        return triangles(uv[kept], depth[kept], colors[kept, None], order[kept])

    def lights(self, corners, colors, first: int) -> Polygons:
        """corners: (k, 8, 3) world; colors: (k, 3). Two of a light's sides stay open."""
        faces = corners[:, LIGHT_FACES].reshape(-1, 3, 3)
        return self.triangles(faces, np.repeat(colors, len(LIGHT_FACES), axis=0), first)

    def boxes(self, boxes: Boxes, colors: dict, first: int) -> list[Polygons]:
        """Faces and edges of the boxes that have a corner in the image and in front of the camera.

        colors: of the front and the rear, by class.
        """
        uv, depth = self.project(corners_of(boxes.centers, boxes.rotations, boxes.sizes))
        inside = (uv >= 0) & (uv < self.model.size) & (depth > 0)[..., None]
        shown = np.flatnonzero(inside.all(axis=-1).any(axis=-1))
        uv, depth = uv[shown], depth[shown]
        ends = np.array([colors[boxes.kinds[i]] for i in shown], np.float64).reshape(-1, 2, 3)
        order = first + PARTS * shown[:, None] + np.arange(PARTS)
        faces, edges = (pick(FACES, uv, depth, ends[:, END]), pick(EDGES, uv, depth))
        widths = np.full(len(edges[0]), palette.EDGE_WIDTH)
        edge_colors = np.tile(palette.BOX_EDGE, (len(edges[0]), 1))
        return [
            triangles(*faces, order[:, : len(FACES)].ravel()),
            self._thick(*edges, widths, edge_colors, order[:, len(FACES) :].ravel()),
        ]

    def _onto_image(self, points):
        return (self.model.project_upstream if self.upstream else self.model.project)(points)

    def _thick(self, uv, depth, widths, colors, order):
        size = self.model.height, self.model.width
        return thick_lines(uv, depth, widths, colors, order, *size)

    def _visible(self, uv, depth):
        """Which of n primitives of k corners can touch the image; uv: (n, k, 2); depth: (n, k)."""
        width, height = self.model.size
        margin = palette.LINE_WIDTH * max(1, height / width)  # lines are half as wide
        reaches = (uv.max(axis=1) > -margin) & (uv.min(axis=1) < self.model.size + margin)
        return reaches.all(-1) & (depth.max(axis=1) > 0) & (depth.min(axis=1) < palette.DEPTH_MAX)


def pick(corners, *arrays) -> list[np.ndarray]:
    """The values (k, 8, ...) of boxes at `corners` (n, c) of each: (k * n, c, ...)."""
    return [a[:, corners].reshape(-1, corners.shape[1], *a.shape[2:]) for a in arrays]


def merge(uv, linked) -> tuple[np.ndarray, np.ndarray]:
    """Leaves out points of lines that are less than MERGED pixels, along the line, from others.

    uv: (n, 2); linked: (n,). Returns the points (m,) at which the remaining segments start and end.
    """
    if not len(uv):
        return np.zeros(0, int), np.zeros(0, int)
    follows = np.append(False, linked[:-1])
    steps = np.linalg.norm(np.diff(uv, axis=0, prepend=uv[:1]), axis=1) * follows
    travelled = np.cumsum(np.rint(steps * WHOLE).astype(np.int64))  # exact, whatever came before
    start = np.maximum.accumulate(np.where(follows, 0, np.arange(len(uv))))
    bins = (travelled - travelled[start]) // int(MERGED * WHOLE)
    kept = np.flatnonzero(~follows | ~linked | (np.diff(bins, prepend=-1) != 0))
    starts = np.flatnonzero(linked[kept])
    return kept[starts], kept[starts + 1]
