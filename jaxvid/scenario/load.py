"""Opens a folder of scene annotations, whatever their format."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxvid.scenario.camera import to_camera
from jaxvid.scenario.clipgt import is_clipgt, read_clipgt
from jaxvid.scenario.interpolation import boxes_at
from jaxvid.scenario.notes import listing
from jaxvid.scenario.rdshq import is_rdshq, read_rdshq
from jaxvid.scenario.scene import Scene

DEEPEST = 200.0  # metres; nothing beyond is drawn
GLANCES = 8  # frames looked at to see whether a camera sees anything


def load_scene(
    folder: str | Path,
    clip_id: str | None = None,
    camera_names: Iterable[str] | str | None = None,
    fps: float | None = None,
) -> Scene:
    """Reads one scene and checks all of it.

    Args:
      folder: with parquet tables (ClipGT) or tar files (RDS-HQ, which goes first).
      clip_id: needed only where the folder holds several clips.
      camera_names: with colons or underscores; None or "all" for the usual seven, as far as they
        are there.
      fps: frames per second of a ClipGT scene without recorded frame times; 30 if None.
    Raises:
      ValueError: one line that says what is wrong, where, and what to do.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the one that holds the scene's files")
    if fps is not None and not 0 < fps <= 1000:
        raise ValueError(f"{fps:g} fps; give a number above 0 and up to 1000")
    read = read_rdshq if is_rdshq(folder) else read_clipgt if is_clipgt(folder) else None
    if read is None:
        raise ValueError(
            f"{folder} is not a scene: neither CLIP.calibration_estimate.parquet (ClipGT) nor "
            f"pose/CLIP.tar (RDS-HQ) is there; it holds: {_contents(folder)}"
        )
    return _check_views(read(folder, clip_id, camera_names, fps), folder)


def _contents(folder: Path) -> str:
    return listing(sorted(path.name for path in folder.iterdir()), 5) or "nothing"


def _check_views(scene: Scene, folder: Path) -> Scene:
    """Adds a warning for each camera that sees nothing; raises ValueError if none sees anything."""
    frames = np.unique(np.linspace(0, scene.frames - 1, GLANCES).astype(int))
    static = _static_points(scene)
    moving = {f: boxes_at(scene.tracks, scene.timestamps[f]).centers for f in frames}
    if not len(static) and not scene.tracks:
        warning = "the scene holds nothing to draw: all videos will be black"
        return dataclasses.replace(scene, warnings=(*scene.warnings, warning))
    blind = [
        name
        for name, camera in scene.cameras.items()
        if not any(_sees(camera, f, np.concatenate([static, moving[f]])) for f in frames)
    ]
    if len(blind) == len(scene.cameras):
        raise ValueError(
            f"{folder}: nothing of the scene is in the view of {listing(blind)}; check where the "
            "cameras are and look (metres, degrees) and their polynomials"
        )
    warnings = (f"{name} sees nothing of the scene: its video will be black" for name in blind)
    return dataclasses.replace(scene, warnings=(*scene.warnings, *warnings))


def _static_points(scene: Scene) -> np.ndarray:
    """(n, 3) vertices and centres of everything that is drawn and stays."""
    kinds = (scene.road_boundaries, scene.wait_lines, scene.poles, scene.crosswalks)
    parts = [points for kind in (*kinds, scene.road_markings) for points in kind]
    parts += [line.points for line in scene.lane_lines]
    parts += [box.center[None] for box in (*scene.traffic_lights, *scene.traffic_signs)]
    return np.concatenate([np.zeros((0, 3), np.float32), *parts])


def _sees(camera, frame: int, points) -> bool:
    uv, depth = camera.model.project(to_camera(points, camera.to_world[frame]))
    inside = ((uv >= 0) & (uv < camera.model.size)).all(axis=-1)
    return bool((inside & (depth > 0) & (depth < DEEPEST)).any())
