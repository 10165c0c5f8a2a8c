"""What a scene holds, independent of file format and look: plain NumPy arrays in metres.

Readers keep annotations as they are (a pole of one point stays one point, a truck stays a truck,
flat polygons stay flat); what the looks change is applied where things are drawn.
"""

import dataclasses
from typing import Literal

import numpy as np

from jaxvid.scenario.camera import FTheta

World = Literal["rdf", "flu"]  # axes of world coordinates: right-down-forward, forward-left-up
Kind = Literal["Car", "Pedestrian", "Cyclist", "Truck", "Other"]

CAMERAS = (  # what "all" means, in upstream's order
    "camera_front_wide_120fov",
    "camera_front_tele_30fov",
    "camera_cross_right_120fov",
    "camera_cross_left_120fov",
    "camera_rear_left_70fov",
    "camera_rear_right_70fov",
    "camera_rear_tele_30fov",
)


@dataclasses.dataclass(frozen=True, eq=False)
class SceneCamera:
    """One camera at its own sensor size.

    to_world: (t, 4, 4) float32, camera axes (x right, y down, z forward) to the scene's world.
    """

    name: str  # with underscores
    model: FTheta
    to_world: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Track:
    """One object over time; `interpolation.boxes_at` gives its box at any time.

    timestamps: (n,) int64 microseconds, ascending (may repeat), n >= 2.
    centers: (n, 3) float32; sizes: (n, 3) float32 length, width, height.
    rotations: (n, 4) float32 quaternions x, y, z, w from the body (x forward, y left, z up in both
      worlds) to the world.
    """

    id: str
    kind: Kind
    category: str  # the word in the file
    timestamps: np.ndarray
    centers: np.ndarray
    rotations: np.ndarray
    sizes: np.ndarray
    moving: bool
    extrapolation_us: int  # how long the object is kept before its first and after its last entry


@dataclasses.dataclass(frozen=True, eq=False)
class LaneLine:
    """points: (n, 3) float32, n >= 2; style: "COLOR STYLE" in capitals, e.g. "WHITE UNKNOWN"."""

    points: np.ndarray
    style: str


@dataclasses.dataclass(frozen=True, eq=False)
class WorldBox:
    """A light or sign that stays where it is.

    center: (3,); rotation: (3, 3) body (x forward, y left, z up) to world; size: (3,) length,
    width, height; all float32. states: red, yellow, green, unknown or off per frame (lists may be
    shorter than the video), or None where the data have no states.
    """

    center: np.ndarray
    rotation: np.ndarray
    size: np.ndarray
    states: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Everything that control videos are drawn from.

    timestamps: (t,) int64 microseconds, when objects are sampled; ego_to_world: (t, 4, 4) float32,
      body axes as the world's (RDF or FLU). An RDS-HQ scene without vehicle poses has the first
      camera's pose there, in FLU axes.
    pose_times: (k,) int64, times of the recorded poses (`--check` looks for gaps there).
    cameras: the chosen ones, in the order asked for; cameras_present: names of all in the files.
    tracks: ascending in id as a string, which is the drawing order.
    road_boundaries ... road_markings: tuples of (n, 3) float32; a pole may have one point, polygons
      have at least three and are not closed.
    undrawn: what is in the files but has no place in the video, e.g. {"lanes": 12}.
    warnings: one line each, already counted, e.g. "missing optional tables: 1 (pole)".
    """

    id: str
    format: Literal["clipgt", "rdshq"]
    world: World
    fps: float
    timestamps: np.ndarray
    ego_to_world: np.ndarray
    pose_times: np.ndarray
    cameras: dict[str, SceneCamera]
    cameras_present: tuple[str, ...] = ()
    tracks: tuple[Track, ...] = ()
    lane_lines: tuple[LaneLine, ...] = ()
    road_boundaries: tuple[np.ndarray, ...] = ()
    wait_lines: tuple[np.ndarray, ...] = ()
    poles: tuple[np.ndarray, ...] = ()
    crosswalks: tuple[np.ndarray, ...] = ()
    road_markings: tuple[np.ndarray, ...] = ()
    traffic_lights: tuple[WorldBox, ...] = ()
    traffic_signs: tuple[WorldBox, ...] = ()
    undrawn: dict[str, int] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        return len(self.timestamps)
