"""A realistic scene out of nothing, in the parquet format: for examples, tests and trials."""

import os
from pathlib import Path

import numpy as np

from jaxvid.scenario import synthetic_road as roads
from jaxvid.scenario import synthetic_traffic as movement
from jaxvid.scenario import tables
from jaxvid.scenario.calibration import CameraCalibration, write_calibration
from jaxvid.scenario.lenses import DEFAULT_LENSES

FPS = 30
LONGEST = 12.0  # seconds; later the cars run out of room
DIRECTIONS = "angle-to-pixeldistance", "pixeldistance-to-angle"  # of lenses, forward and backward
START = 1_700_000_000_000_000  # microseconds
MOUNTINGS = {  # position in metres; roll, pitch, yaw in degrees
    "camera_front_wide_120fov": ((1.70, -0.01, 1.44), (0.13, 0.47, -0.71)),
    "camera_front_tele_30fov": ((1.65, -0.14, 1.45), (-0.33, -0.72, -0.73)),
    "camera_cross_right_120fov": ((2.48, -0.95, 0.93), (-0.19, -1.38, -66.8)),
    "camera_cross_left_120fov": ((2.47, 0.94, 0.92), (-0.17, 0.44, 66.4)),
    "camera_rear_left_70fov": ((2.03, 1.04, 0.89), (0.63, 3.26, 151.4)),
    "camera_rear_right_70fov": ((2.01, -1.00, 0.90), (-0.28, 0.87, -154.7)),
    "camera_rear_tele_30fov": ((0.38, 0.30, 1.43), (-0.25, 0.58, 179.2)),
}


def synthetic_scene(
    seed: int, folder: str | os.PathLike, clip: str = "synthetic", seconds: float = 10.0
) -> Path:
    """Writes a drive over a crossing, 30 frames a second, with seven cameras and 40 objects.

    The same seed gives the same files. Curve, slope, crossing and the places of all objects vary
    with the seed. The map has lanes, lines, curbs, crosswalks, arrows, lamps, lights and signs.

    Returns:
      `folder`, which holds `{clip}.*.parquet`.
    Raises:
      ValueError: seconds outside [0.2, 12].
    """
    if not 0.2 <= seconds <= LONGEST:
        raise ValueError(f"seconds={seconds} is outside [0.2, {LONGEST:g}]; cars run out of room")
    folder, rng = Path(folder), np.random.default_rng(seed)
    road = roads.Road(
        radius=float(rng.choice([-1, 1]) * rng.uniform(300, 450)),
        slope=float(rng.uniform(-0.02, 0.02)),
        crossing=float(rng.uniform(64, 70)),
        end=movement.MAIN_SPEED * LONGEST + roads.AHEAD,
    )
    write_calibration(folder, clip, rig())
    _write_drive(folder, clip, road, seconds, rng)
    _write_traffic(folder, clip, road, seconds, rng)
    _write_map(folder, clip, road)
    return folder


def rig() -> list[CameraCalibration]:
    """Seven cameras as on production cars."""
    cameras = []
    for name, (position, angles) in MOUNTINGS.items():
        cx, cy, width, height, *polynomial, backward = DEFAULT_LENSES[name]
        direction = DIRECTIONS[backward]
        lens = (width, height, (cx, cy), tuple(polynomial), direction)
        cameras.append(CameraCalibration(name, *lens, position, angles))
    return cameras


def ego_distance(seconds) -> np.ndarray:
    """Metres driven at times (n,)."""
    seconds = np.asarray(seconds, float)
    return movement.MAIN_SPEED * seconds + 0.8 * np.sin(seconds / 2)


def _observation_times(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """About ten times a second, to within half a millisecond; microseconds from the start."""
    last = round((round(seconds * FPS) - 0.5) / FPS * 1e6)  # so many frames and no more
    times = np.linspace(0, last, max(round(seconds * 10), 2) + 1).astype(np.int64)
    times[1:-1] += rng.integers(-500, 501, len(times) - 2)
    return times


def _write_drive(folder, clip, road, seconds, rng) -> None:
    times = _observation_times(seconds, rng)
    distance = ego_distance(times / 1e6) - roads.BACK
    positions, rotations = movement.follow(movement.drive(road), distance)
    tables.write_egomotion(folder, clip, START + times, positions, rotations)


def _write_traffic(folder, clip, road, seconds, rng) -> None:
    columns = []
    for i, actor in enumerate(movement.traffic(road, rng)):
        times = _observation_times(seconds, rng)
        points, rotations = actor.place(times / 1e6)
        n = len(times)
        centers = road.raised(points, np.full(n, actor.size[2] / 2))
        sizes = np.tile(actor.size, (n, 1))
        columns.append(([f"{101 + i}"] * n, [actor.category] * n, times, centers, sizes, rotations))
    ids, words, times, centers, sizes, rotations = (
        np.concatenate(column) for column in zip(*columns, strict=True)
    )
    tables.write_obstacles(folder, clip, ids, words, START + times, centers, sizes, rotations)


def _write_map(folder, clip, road) -> None:
    tables.write_lane_lines(folder, clip, *roads.lane_lines(road))
    tables.write_lanes(folder, clip, *roads.lanes(road))
    tables.write_elements(folder, clip, "road_boundary", roads.boundaries(road), "tall_curb")
    tables.write_elements(folder, clip, "wait_line", roads.wait_lines(road), "STOP")
    tables.write_elements(folder, clip, "pole", roads.poles(road), "LIGHT")
    tables.write_elements(folder, clip, "crosswalk", roads.crosswalks(road), "PEDESTRIAN")
    tables.write_elements(folder, clip, "road_marking", roads.arrows(road), "ARROW")
    tables.write_elements(folder, clip, "intersection_area", roads.middle_of_crossing(road))
    feet, yaws = zip(*roads.light_places(road), strict=True)
    _write_boxes(folder, clip, "traffic_light", feet, yaws, 5.2, (0.45, 0.5, 1.1))
    stations = np.array([18.0, road.crossing - 24, road.crossing + 40, road.crossing + 90])
    feet = road.main(stations, -roads.CURB - 0.9)
    yaws = stations / road.radius + np.pi
    _write_boxes(folder, clip, "traffic_sign", feet, yaws, 2.4, (0.1, 0.8, 0.8))


def _write_boxes(folder, clip, table, feet, yaws, height, size) -> None:
    feet, yaws = np.asarray(feet), np.asarray(yaws)
    zero = np.zeros_like(yaws)
    rotations = np.stack([zero, zero, np.sin(yaws / 2), np.cos(yaws / 2)], axis=-1)
    centers = feet + np.array([0, 0, height])
    tables.write_boxes(folder, clip, table, centers, np.tile(size, (len(feet), 1)), rotations)
