"""Tiny scenes in both formats, made of plain rows that a test may damage before writing."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxvid.scenario.load import load_scene

START = 1_700_000_000_000_000  # microseconds
CLIP = "clip"
FRONT, REAR = "camera:front:wide:120fov", "camera:rear:tele:30fov"
WIDE = "0 1.0576e-3 8.2e-9 -3.39e-11 8.07e-14 -2.95e-17"
TELE = "0 3675.7 178.8 -387.4 -11.4 18.0"
STILL = {"x": 0.0, "y": 0.0, "z": 0.0, "w": 1.0}


def xyz(*numbers) -> dict:
    return dict(zip("xyz", map(float, numbers), strict=True))


def sensor(name: str, polynomial: str, kind: str, yaw: float = 0.0) -> dict:
    lens = {"Model": "ftheta", "cx": "954.2", "cy": "557.2", "width": "1920", "height": "1080"}
    return {
        "name": name,
        "properties": {**lens, "polynomial": polynomial, "polynomial-type": kind},
        "nominalSensor2Rig_FLU": {"t": [1.7, 0, 1.4], "roll-pitch-yaw": [0, 0, yaw]},
    }


def rig() -> list[dict]:
    return [
        {"name": "lidar:top", "properties": {}},
        sensor(FRONT, WIDE, "pixeldistance-to-angle"),
        sensor(REAR, TELE, "angle-to-pixeldistance", 180.0),
    ]


def observation(track: str, time: int, x: float, category: str = "automobile") -> dict:
    return {
        "key": {"clip_id": CLIP, "timestamp_micros": time, "label_class_id": "3d:v1"},
        "obstacle": {
            "trackline_id": track,
            "center": xyz(x, 2, 0.75),
            "size": xyz(4.5, 1.9, 1.5),
            "orientation": STILL,
            "category": category,
        },
    }


def tables(poses: int = 11) -> dict[str, list[dict]]:
    """Rows of every table by name: a second on a straight road, two cars, a line, a crosswalk."""
    times = [START + 100_000 * i for i in range(poses)]
    keys = [{"clip_id": CLIP, "timestamp_micros": t} for t in times]
    line = [xyz(x, 0, 0) for x in range(-60, 61, 5)]
    corners = [xyz(20, -3, 0), xyz(20, 3, 0), xyz(23, 3, 0), xyz(23, -3, 0)]
    egomotion = [
        {"key": k, "egomotion_estimate": {"location": xyz(i, 0, 0), "orientation": STILL}}
        for i, k in enumerate(keys)
    ]
    calibration = {"name": "rig", "rig_json": json.dumps({"rig": {"sensors": rig()}})}
    return {
        "egomotion_estimate": egomotion,
        "calibration_estimate": [{"key": keys[0], "calibration_estimate": calibration}],
        "obstacle": [
            observation(track, t, x + i)
            for track, x in (("7", 15), ("12", -20))
            for i, t in enumerate(times)
        ],
        "lane_line": [
            {"lane_line": {"line_rail": line, "styles": ["DASHED"], "colors": ["WHITE"]}},
            {"lane_line": {"line_rail": line, "styles": None, "colors": None}},
        ],
        "crosswalk": [{"crosswalk": {"location": corners}}],
    }


def write_tables(folder: Path, rows: dict[str, list[dict]], clip: str = CLIP) -> Path:
    """Writes the tables; one without rows keeps the columns that it usually has."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, content in rows.items():
        table = pa.Table.from_pylist(content or tables()[name])
        pq.write_table(table if content else table.slice(0, 0), folder / f"{clip}.{name}.parquet")
    return folder


def lens(rows: dict, name: str, **properties) -> None:
    """Changes properties of one camera in the rig of `tables()`."""
    calibration = rows["calibration_estimate"][0]["calibration_estimate"]
    content = json.loads(calibration["rig_json"])
    next(s for s in content["rig"]["sensors"] if s["name"] == name)["properties"] |= properties
    calibration["rig_json"] = json.dumps(content)


def pose(x: float = 0.0) -> np.ndarray:
    matrix = np.eye(4, dtype=np.float32)
    matrix[0, 3] = x
    return matrix


def samples(frames: int = 6) -> dict[str, dict]:
    """Fields of every tar by attribute: the same road for `frames` frames, in RDS-HQ."""
    looking_ahead = np.array([[0, 0, 1, 1.7], [-1, 0, 0, 0], [0, -1, 0, 1.4], [0, 0, 0, 1]])
    name = FRONT.replace(":", "_")
    car = {
        "object_to_world": pose(15).tolist(),
        "object_lwh": [4.5, 1.9, 1.5],
        "object_is_moving": True,
        "object_type": "Automobile",
    }
    vertices = [[x, 0.0, 0.0] for x in range(-60, 61, 5)]
    label = {"labelData": {"shape3d": {"polyline3d": {"vertices": vertices}}}}
    intrinsic = np.array([954.2, 557.2, 1920, 1080, *map(float, WIDE.split()), 1])
    return {
        "pose": {
            f"{i:06d}.pose.{name}.npy": pose(i / 3) @ looking_ahead.astype(np.float32)
            for i in range(frames)
        },
        "vehicle_pose": {f"{i:06d}.vehicle_pose.npy": pose(i / 3) for i in range(frames)},
        "ftheta_intrinsic": {f"ftheta_intrinsic.{name}.npy": intrinsic},
        "all_object_info": {
            f"{i:06d}.all_object_info.json": {"7": dict(car)} for i in range(0, frames, 3)
        },
        "3d_lanelines": {"lanelines.json": {"labels": [label]}},
    }


def write_samples(folder: Path, content: dict[str, dict], clip: str = CLIP) -> Path:
    """Writes the tars; arrays become .npy files, anything else JSON."""
    for attribute, fields in content.items():
        (folder / attribute).mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / attribute / f"{clip}.tar", "w") as tar:
            for field, value in fields.items():
                data = io.BytesIO()
                if isinstance(value, np.ndarray):
                    np.save(data, value)
                else:
                    data.write(json.dumps(value).encode())
                member = tarfile.TarInfo(f"{clip}.{field}")
                member.size = data.tell()
                data.seek(0)
                tar.addfile(member, data)
    return folder


def refused(words: str, folder, **arguments):
    """Checks that loading fails with one line that matches `words`."""
    with pytest.raises(ValueError, match=words) as error:
        load_scene(folder, **arguments)
    assert "\n" not in str(error.value)
