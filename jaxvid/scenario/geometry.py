"""What stands still in a scene, as world points ready to be projected: lines and triangles.

Made once per scene and look. The order is that of drawing, which decides between things at the
same depth (cosmos-transfer2.5, `world_scenario/rendering`).
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial import Delaunay, QhullError

from jaxvid.scenario import palette
from jaxvid.scenario.palette import Look, check_look
from jaxvid.scenario.patterns import apply_pattern, as_segments, double, subdivide
from jaxvid.scenario.scene import Scene, World, WorldBox

JOINT = 1e-4  # metres: ends of segments nearer than this are one point
CORNER_SIGNS = np.array(  # of boxes, in units of half length, width and height
    [(x, y, z) for z in (1, -1) for x, y in ((1, 1), (1, -1), (-1, -1), (-1, 1))], np.float32
)
SIGN_FACES = np.array(
    [
        *((0, 1, 2), (0, 2, 3), (4, 5, 6), (4, 6, 7), (0, 1, 5), (0, 5, 4)),
        *((1, 2, 6), (1, 6, 5), (2, 3, 7), (2, 7, 6), (3, 0, 4), (3, 4, 7)),
    ]
)
# Upstream fills this path as a fan about its first corner.
LIGHT_PATH = np.array([0, 1, 2, 3, 0, 4, 5, 6, 7, 4, 5, 1, 2, 6, 7, 3])
LIGHT_FACES = np.stack([np.zeros(14, int), LIGHT_PATH[1:-1], LIGHT_PATH[2:]], axis=1)


class Lines(NamedTuple):
    """Chains of points: where `linked`, a point and the next one are the ends of a segment."""

    points: np.ndarray  # (n, 3) float32 metres, world
    linked: np.ndarray  # (n,) bool
    widths: np.ndarray  # (n,) float32 pixels at depth 0
    colors: np.ndarray  # (n, 3) float32, 0..255

    @property
    def segments(self) -> np.ndarray:
        """(m, 2, 3) float32."""
        starts = np.flatnonzero(self.linked)
        return np.stack([self.points[starts], self.points[starts + 1]], axis=1)


class Geometry(NamedTuple):
    """Everything that does not move, in the order of drawing: lines, triangles, lights."""

    lines: Lines
    triangles: np.ndarray  # (n, 3, 3) float32 metres, world
    triangle_colors: np.ndarray  # (n, 3) float32, 0..255
    lights: np.ndarray  # (k, 8, 3) float32 corners
    warnings: tuple[str, ...]  # what is not drawn, one line each, with the number


def build_geometry(scene: Scene, look: Look) -> Geometry:
    """Raises ValueError for an unknown look."""
    check_look(look)
    triangles, colors, warnings = [], [], []
    for name, color in (
        ("crosswalks", palette.CROSSWALK),
        ("road_markings", palette.ROAD_MARKING),
    ):
        filled = [fill_polygon(p, ground_axes(scene.world, look)) for p in getattr(scene, name)]
        empty = sum(len(t) == 0 for t in filled)
        if empty:
            reason = "flat to upstream, which stops there" if look == "upstream" else "without area"
            warnings.append(f"{name.replace('_', ' ')} left out, {reason}: {empty}")
        triangles += filled
        colors += [color] * sum(map(len, filled))
    off = sum("off" in (light.states or ()) for light in scene.traffic_lights)
    if off:
        warnings.append(f"traffic lights that are off at times, drawn as unknown: {off}")
    signs = [box_corners(box)[SIGN_FACES] for box in scene.traffic_signs]
    colors += [palette.TRAFFIC_SIGN] * sum(map(len, signs))
    return Geometry(
        build_lines(scene, look),
        np.concatenate([np.zeros((0, 3, 3), np.float32), *triangles, *signs]),
        np.array(colors, np.float32).reshape(-1, 3),
        np.array([box_corners(box) for box in scene.traffic_lights], np.float32).reshape(-1, 8, 3),
        tuple(warnings),
    )


def build_lines(scene: Scene, look: Look) -> Lines:
    """All lines; those of one width are drawn together, in the order in which widths appear."""
    poles = [pole for pole in (stand(p, scene.world, look) for p in scene.poles) if len(pole) > 1]
    near, pole = palette.LINE_WIDTH, palette.POLE_WIDTH
    items = [
        *((coarse(line), near, palette.ROAD_BOUNDARY) for line in scene.road_boundaries),
        *((coarse(line), pole, palette.POLE) for line in poles),
        *((coarse(line), near, palette.WAIT_LINE) for line in scene.wait_lines),
    ]
    for line in scene.lane_lines:
        items += [
            (segments, near, palette.LANE_LINES.get(line.style, palette.OTHER_LINE).color)
            for segments in lane_segments(line, ground_axes(scene.world, look))
        ]
    items = [item for item in items if len(item[0])]
    widths = list(dict.fromkeys(width for _, width, _ in items))
    items.sort(key=lambda item: widths.index(item[1]))
    return join(items)


def lane_segments(line, ground: tuple[int, int]) -> list[np.ndarray]:
    """One array of segments (n, 2, 3) for a single line, two for a double one."""
    patterns = palette.LANE_LINES.get(line.style, palette.OTHER_LINE).patterns
    segments = as_segments(subdivide(line.points, palette.LANE_STEP))
    copies = (segments,) if len(patterns) == 1 else double(segments, ground)
    return [apply_pattern(c, pattern) for c, pattern in zip(copies, patterns, strict=True)]


def join(items) -> Lines:
    """items: tuples of segments (n, 2, 3), width and colour. Points that touch become one."""
    if not items:
        empty = np.zeros((0, 3), np.float32)
        return Lines(empty, np.zeros(0, bool), np.zeros(0, np.float32), empty)
    chains = [link(segments) for segments, _, _ in items]
    counts = [len(points) for points, _ in chains]
    return Lines(
        np.concatenate([points for points, _ in chains]),
        np.concatenate([linked for _, linked in chains]),
        np.repeat(np.array([width for _, width, _ in items], np.float32), counts),
        np.repeat(np.array([color for _, _, color in items], np.float32), counts, axis=0),
    )


def link(segments) -> tuple[np.ndarray, np.ndarray]:
    """Segments (n, 2, 3), n >= 1, to points (m, 3) and whether each is linked to the next (m,)."""
    gaps = np.abs(segments[1:, 0] - segments[:-1, 1]).max(axis=1) > JOINT
    ends = np.append(gaps, True)  # segments whose second point is nobody's first
    first = np.arange(len(segments)) + np.cumsum(ends) - ends
    points = np.empty((len(segments) + ends.sum(), 3), np.float32)
    linked = np.zeros(len(points), bool)
    points[first + 1], linked[first] = segments[:, 1], True
    points[first] = segments[:, 0]
    return points, linked


def fill_polygon(outline, ground: tuple[int, int]) -> np.ndarray:
    """Triangles (n, 3, 3) of an outline (m, 3), as seen from above; none if it has no area.

    They fill its convex hull: an arrow becomes a pentagon, in both looks.
    """
    points = subdivide(outline, palette.COARSE_STEP)
    points = points[:-1] if np.allclose(points[0], points[-1]) else points
    try:
        return points[Delaunay(points[:, ground]).simplices]
    except (QhullError, ValueError):  # all points on a line, or fewer than three
        return np.zeros((0, 3, 3), np.float32)


def stand(pole, world: World, look: Look) -> np.ndarray:
    """A pole of one point as an upright line; others as they are.

    Upstream lays it along the road in parquet scenes, and does not draw it in RDS-HQ scenes.
    """
    if len(pole) != 1 or (look == "upstream" and world == "flu"):
        return pole
    up = np.zeros(3, np.float32)
    axis, sign = (1, -1) if world == "rdf" and look == "documented" else (2, 1)
    up[axis] = sign * palette.LONE_POLE_HEIGHT
    return np.stack([pole[0], pole[0] + up])


def ground_axes(world: World, look: Look) -> tuple[int, int]:
    """Which axes span the ground; upstream takes the first two, upright ones in parquet scenes."""
    return (0, 2) if world == "rdf" and look == "documented" else (0, 1)


def coarse(line) -> np.ndarray:
    """Segments (m, 2, 3) of a line (n, 3) that is no lane line."""
    return as_segments(subdivide(line, palette.COARSE_STEP))


def box_corners(box: WorldBox) -> np.ndarray:
    """The eight corners (8, 3) float32 of one box."""
    return corners_of(box.center[None], box.rotation[None], box.size[None])[0]


def corners_of(centers, rotations, sizes) -> np.ndarray:
    """Corners (k, 8, 3) float32 of boxes: centers (k, 3), rotations (k, 3, 3), sizes (k, 3)."""
    local = CORNER_SIGNS * np.asarray(sizes, np.float64)[:, None] / 2
    return (local @ np.swapaxes(rotations, 1, 2) + centers[:, None]).astype(np.float32)
