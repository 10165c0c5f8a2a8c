"""Scene annotations from your own logs: the parquet tables, written from NumPy arrays.

A scene is a folder with one file `{clip}.{table}.parquet` per table. It needs `write_egomotion` and
`calibration.write_calibration`; all other tables may be left out. Everywhere:

- metres, microseconds of one clock, and a world with x forward, y left, z up. Put its origin near
  the road (the usual choice is the vehicle's first pose): coordinates are kept in float32.
- a rotation is a unit quaternion (x, y, z, w) that turns body axes (x forward, y left, z up) into
  the world's: `scipy.spatial.transform.Rotation.from_euler("z", yaw[:, None]).as_quat()` for n
  objects on a flat road, `.from_matrix(...)` for matrices.
- the vehicle's origin is the centre of the rear axle, projected to the ground; the positions of
  cameras count from there. A box's centre is its geometric centre, half its height above the road.

Every function checks its arrays and raises a ValueError of one line.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa

from jaxvid.core.files import atomic_path
from jaxvid.scenario import arrow, plausible

FRONT = "camera_front_wide_120fov"  # whose file of frame times counts for all cameras
Polylines = Literal["road_boundary", "wait_line", "pole"]
Polygons = Literal["crosswalk", "road_marking", "intersection_area", "road_island"]
FEWEST = {"road_boundary": 2, "wait_line": 2, "pole": 1}  # points; polygons need 3
FEWEST |= {name: 3 for name in ("crosswalk", "road_marking", "intersection_area", "road_island")}


def write_egomotion(folder: str | os.PathLike, clip: str, timestamps, positions, rotations) -> None:
    """The vehicle's trajectory; about 10 poses a second are enough.

    timestamps: (n,) increasing, n >= 2; positions: (n, 3); rotations: (n, 4). Frames lie between
    the first and the last timestamp.
    """
    where = f"egomotion of {clip}"
    times = arrow.check_times(timestamps, where)
    positions = arrow.check_rows(positions, 3, where, "positions")
    rotations = arrow.check_rotations(rotations, where)
    arrow.same_length(where, timestamps=times, positions=positions, rotations=rotations)
    plausible.check_pose_times(times, where)
    plausible.check_speed(times, positions, where)
    name = pa.array(["egomotion"] * len(times))
    payload = arrow.struct(
        name=name, location=arrow.xyz(positions), orientation=arrow.xyzw(rotations)
    )
    key = {"timestamp_micros": pa.array(times)}
    arrow.write_table(folder, clip, "egomotion_estimate", payload, **key)


def write_frame_times(folder: str | os.PathLike, clip: str, timestamps) -> None:
    """Optional: when the camera frames were taken, (t,) increasing; all cameras share them.

    Without this file frames are spaced evenly from the first pose on.
    """
    arrow.check_clip(clip)
    times = arrow.check_times(timestamps, f"frame times of {clip}")
    if not len(times):
        raise ValueError(f"frame times of {clip}: there are none; leave the file out")
    plausible.check_increasing(times, f"frame times of {clip}")
    with atomic_path(Path(folder) / f"{clip}.{FRONT}.json") as path:
        path.write_text(json.dumps([{"timestamp": int(t)} for t in times]))


def write_obstacles(
    folder: str | os.PathLike,
    clip: str,
    track_ids: Sequence[str],
    categories: Sequence[str],
    timestamps,
    centers,
    sizes,
    rotations,
) -> None:
    """The observed boxes of moving and parked objects, one row each, in any order.

    track_ids: (n,) equal for all boxes of one object, which needs at least two. Objects are
      interpolated between their observations and live 0.5 s longer at both ends.
    categories: (n,) automobile | other_vehicle | vehicle | car, pedestrian | person,
      bicycle | cyclist | motorcycle | rider, bus | truck | heavy_truck | train_or_tram_car |
      trolley_bus | trailer; other words are drawn in the colour for other things.
    timestamps: (n,); centers: (n, 3); sizes: (n, 3) length, width, height; rotations: (n, 4).
    """
    where = f"obstacles of {clip}"
    times = arrow.check_times(timestamps, where)
    centers = arrow.check_rows(centers, 3, where, "centers")
    sizes = arrow.check_rows(sizes, 3, where, "sizes")
    rotations = arrow.check_rotations(rotations, where)
    ids, words = [str(i) for i in track_ids], [str(c) for c in categories]
    arrow.same_length(
        where,
        track_ids=ids,
        categories=words,
        timestamps=times,
        centers=centers,
        sizes=sizes,
        rotations=rotations,
    )
    if not len(sizes):
        raise ValueError(f"{where}: there are none; leave the table out")
    plausible.check_sizes(sizes, where)
    payload = arrow.struct(
        trackline_id=pa.array(ids, pa.string()),
        center=arrow.xyz(centers),
        size=arrow.xyz(sizes),
        orientation=arrow.xyzw(rotations),
        category=pa.array(words, pa.string()),
    )
    label = pa.array(["3d:v1"] * len(times), pa.string())
    key = {"timestamp_micros": pa.array(times), "label_class_id": label}
    arrow.write_table(folder, clip, "obstacle", payload, **key)


def write_lane_lines(
    folder: str | os.PathLike, clip: str, lines: Sequence, colors: Sequence[str], styles
) -> None:
    """Painted lane lines, one colour and style each.

    lines: k arrays (n, 3), n >= 2, along the middle of the paint.
    colors: (k,) WHITE | YELLOW | BLUE | UNKNOWN.
    styles: (k,) SOLID_SINGLE | LONG_DASHED_SINGLE | SHORT_DASHED_SINGLE | DOT_DASHED_SINGLE |
      SOLID_GROUP (a double line) | DASHED_SOLID | SOLID_DASHED | DOT_SOLID_SINGLE |
      DOT_SOLID_GROUP; README says which pairs have a look of their own.
    """
    where = f"lane lines of {clip}"
    arrow.same_length(where, lines=lines, colors=colors, styles=styles)
    points = arrow.check_elements(lines, 2, where)
    counts = [len(p) for p in points]

    def per_point(words):
        return arrow.lists(
            [str(word) for word, n in zip(words, counts, strict=True) for _ in range(n)], counts
        )

    unknown = per_point(["UNKNOWN"] * len(points))
    payload = arrow.struct(
        line_rail=arrow.points_column(points),
        styles=per_point(styles),
        colors=per_point(colors),
        left_driving_direction=unknown,
        right_driving_direction=unknown,
    )
    arrow.write_map(folder, clip, "lane_line", payload)


def write_elements(
    folder: str | os.PathLike,
    clip: str,
    table: Polylines | Polygons,
    elements: Sequence,
    category="",
) -> None:
    """Map elements that are lines or areas, for one of the tables below.

    elements: arrays (n, 3). Lines: road_boundary and wait_line (n >= 2), pole (from the ground up;
      one point alone stands for a pole of 3 m). Areas, n >= 3 corners in turn, not closed:
      crosswalk and road_marking, and intersection_area and road_island, which are kept, not drawn.
    category: word stored with each of them; it changes nothing in the video.
    """
    where = f"{table} of {clip}"
    if table not in FEWEST:
        raise ValueError(f"{where}: this is no table of lines or areas; use {', '.join(FEWEST)}")
    points = arrow.check_elements(elements, FEWEST[table], where)
    fields = {
        "category": pa.array([category] * len(points), pa.string()),
        "location": arrow.points_column(points),
    }
    if table == "wait_line":
        fields["is_implicit"] = pa.array([False] * len(points), pa.bool_())
        fields["intersection_subtype"] = pa.array(["ENTRY"] * len(points), pa.string())
    arrow.write_map(folder, clip, table, arrow.struct(**fields))


def write_lanes(folder: str | os.PathLike, clip: str, left: Sequence, right: Sequence) -> None:
    """Lanes by their two sides: k arrays (n, 3) each. They are kept, but no video shows them."""
    where = f"lanes of {clip}"
    arrow.same_length(where, left=left, right=right)
    rails = {"left_rail": left, "right_rail": right}
    columns = {n: arrow.points_column(arrow.check_elements(r, 2, where)) for n, r in rails.items()}
    arrow.write_map(folder, clip, "lane", arrow.struct(**columns))


def write_boxes(
    folder: str | os.PathLike,
    clip: str,
    table: Literal["traffic_light", "traffic_sign"],
    centers,
    sizes,
    rotations,
) -> None:
    """Traffic lights or signs. centers: (k, 3); sizes: (k, 3) along x, y, z; rotations: (k, 4).

    The box's x axis is the direction it faces.
    """
    where = f"{table} of {clip}"
    if table not in ("traffic_light", "traffic_sign"):
        raise ValueError(f"{where}: this is no table of boxes; use traffic_light or traffic_sign")
    centers = arrow.check_rows(centers, 3, where, "centers")
    sizes = arrow.check_rows(sizes, 3, where, "sizes")
    rotations = arrow.check_rotations(rotations, where)
    arrow.same_length(where, centers=centers, sizes=sizes, rotations=rotations)
    if len(sizes):
        plausible.check_sizes(sizes, where)
    payload = arrow.struct(
        center=arrow.xyz(centers),
        dimensions=arrow.xyz(sizes),
        orientation=arrow.xyzw(rotations),
        category=pa.array([table] * len(centers), pa.string()),
    )
    arrow.write_map(folder, clip, table, payload)
