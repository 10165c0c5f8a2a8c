"""What the cameras of a scene have in view, looked at now and then, to warn before rendering."""

import dataclasses

import numpy as np

from jaxvid.scenario.camera import to_camera
from jaxvid.scenario.geometry import corners_of
from jaxvid.scenario.interpolation import boxes_at
from jaxvid.scenario.notes import listing
from jaxvid.scenario.palette import DEPTH_MAX
from jaxvid.scenario.patterns import subdivide
from jaxvid.scenario.scene import Scene, SceneCamera

GLANCES = 8  # frames looked at to see whether a camera sees anything
GLANCE = 0.5  # seconds between looks for each object
SPACING = 2.0  # metres between the points looked at of a line that is drawn


def in_view(camera: SceneCamera, frame: int, points) -> np.ndarray:
    """(...) bool: which world points (..., 3) are in the image, and near enough to be drawn."""
    uv, depth = camera.model.project(to_camera(points, camera.to_world[frame]))
    inside = ((uv >= 0) & (uv < camera.model.size)).all(axis=-1)
    return inside & (depth > 0) & (depth < DEPTH_MAX)


def check_views(scene: Scene, where: str) -> Scene:
    """Adds a warning for each camera that sees nothing; raises ValueError if none sees anything."""
    frames = np.unique(np.linspace(0, scene.frames - 1, GLANCES).astype(int))
    static = static_points(scene)
    moving = {f: boxes_at(scene.tracks, int(scene.timestamps[f])).centers for f in frames}
    if not len(static) and not scene.tracks:
        warning = "the scene holds nothing to draw: all videos will be black"
        return dataclasses.replace(scene, warnings=(*scene.warnings, warning))
    blind = [
        name
        for name, camera in scene.cameras.items()
        if not any(in_view(camera, f, np.concatenate([static, moving[f]])).any() for f in frames)
    ]
    if len(blind) == len(scene.cameras):
        raise ValueError(
            f"{where}: nothing of the scene is in the view of {listing(blind)}; check where the "
            "cameras are and look (metres, degrees) and their polynomials"
        )
    warnings = (f"{name} sees nothing of the scene: its video will be black" for name in blind)
    return dataclasses.replace(scene, warnings=(*scene.warnings, *warnings))


def static_points(scene: Scene) -> np.ndarray:
    """(n, 3) points on everything that is drawn and stays; lines have few vertices of their own."""
    kinds = (scene.road_boundaries, scene.wait_lines, scene.poles, scene.crosswalks)
    lines = [points for kind in (*kinds, scene.road_markings) for points in kind]
    lines += [line.points for line in scene.lane_lines]
    boxes = [box.center[None] for box in (*scene.traffic_lights, *scene.traffic_signs)]
    parts = [subdivide(line, SPACING) for line in lines] + boxes
    return np.concatenate([np.zeros((0, 3), np.float32), *parts])


def seen_tracks(scene: Scene) -> set[str]:
    """Ids of the tracks with a corner in view of any camera at some of the times looked at."""
    step = max(round(GLANCE * scene.fps), 1)
    seen: set[str] = set()
    for frame in range(0, scene.frames, step):
        boxes = boxes_at(scene.tracks, int(scene.timestamps[frame]))
        corners = corners_of(boxes.centers, boxes.rotations, boxes.sizes)
        for camera in scene.cameras.values():
            visible = in_view(camera, frame, corners).any(axis=1)
            seen |= {boxes.ids[i] for i in np.flatnonzero(visible)}
    return seen
