"""Wrong scenes: every kind of damage is answered by one line, before anything is drawn."""

import io
import json
import re
import shutil
import tarfile

import numpy as np
import pytest
from small_scenes import (
    CLIP,
    REAR,
    START,
    TELE,
    lens,
    pose,
    refused,
    samples,
    tables,
    write_samples,
    write_tables,
    xyz,
)

from jaxvid.scenario.load import load_scene


def all_rows(table, member, change):
    def apply(rows):
        for row in rows[table]:
            row[table][member] = change(row[table][member])

    return apply


def all_times(table, change):
    def apply(rows):
        for row in rows[table]:
            row["key"]["timestamp_micros"] = change(row["key"]["timestamp_micros"])

    return apply


def one(table, row, member, value):
    return lambda rows: rows[table][row][table].update({member: value})


def thousandfold(vector):
    return {name: 1000 * number for name, number in vector.items()}


def bad_lens(**properties):
    return lambda rows: lens(rows, REAR, **properties)


def bad_rig(text):
    return one("calibration_estimate", 0, "rig_json", text)


EGO, CARS, LINES = "egomotion_estimate", "obstacle", "lane_line"
BAD_TABLES = {
    "no egomotion": (lambda rows: rows.pop(EGO), "lacks the required table CLIP.egomotion_est"),
    "no calibration": (lambda rows: rows.pop("calibration_estimate"), "CLIP.calibration_estimate"),
    "no column": (lambda rows: [r[EGO].pop("location") for r in rows[EGO]], "location"),
    "no member": (
        all_rows(CARS, "center", lambda v: {"x": 0.0, "y": 0.0}),
        "center.z; there is: x",
    ),
    "no times": (lambda rows: [r.pop("key") for r in rows[CARS]], "key.timestamp_micros"),
    "no vertices": (lambda rows: [r[LINES].pop("line_rail") for r in rows[LINES]], "line_rail"),
    "words": (
        all_rows(EGO, "location", lambda v: dict.fromkeys("xyz", "far")),
        "must hold numbers",
    ),
    "flat vertices": (all_rows(LINES, "line_rail", lambda v: [1.0]), "must be a list of x, y, z"),
    "nanoseconds": (all_times(EGO, lambda t: t * 1000), "look like nanoseconds"),
    "nanoseconds from 0": (
        all_times(EGO, lambda t: (t - START) * 1000),
        "100 s apart .*look like nanoseconds",
    ),
    "milliseconds": (all_times(EGO, lambda t: t // 1000), "look like milliseconds or seconds"),
    "objects in nanoseconds": (all_times(CARS, lambda t: t * 1000), "lie outside the poses'"),
    "one object in nanoseconds": (
        lambda rows: rows[CARS][5]["key"].update(timestamp_micros=1000 * START),
        "1 of 22 objects are over 3600 s away from the poses \\(first: row 5, 17000",
    ),
    "millimetres": (all_rows(EGO, "location", thousandfold), "moves at 1e\\+04 m/s"),
    "sizes in millimetres": (all_rows(CARS, "size", thousandfold), "objects are 4500 m long"),
    "negative size": (one(CARS, 0, "size", xyz(-1, 1, 1)), "size is negative"),
    "not increasing": (lambda rows: rows[EGO].reverse(), "timestamps do not increase: .*row 1"),
    "repeated pose": (lambda rows: rows[EGO].insert(3, rows[EGO][3]), "do not increase"),
    "one pose": (lambda rows: rows[EGO].__delitem__(slice(1, None)), "1 poses; at least 2"),
    "no poses": (lambda rows: rows[EGO].clear(), "0 poses; at least 2"),
    "no objects": (lambda rows: rows[CARS].clear(), "has no rows; leave the file out"),
    "no rig": (lambda rows: rows["calibration_estimate"].clear(), "has no rows; the first one"),
    "NaN pose": (one(EGO, 2, "location", xyz(1, np.nan, 0)), "location holds NaN.*row 2"),
    "empty pose": (one(EGO, 2, "location", None), "location holds NaN, nothing or huge"),
    "NaN object": (one(CARS, 5, "center", xyz(1, np.nan, 0)), "center holds NaN.*row 5"),
    "zero turn": (one(EGO, 1, "orientation", dict.fromkeys("xyzw", 0.0)), "row 1 is zero"),
    "empty time": (lambda rows: rows[EGO][1]["key"].update(timestamp_micros=None), "1 empty cells"),
    "rig of garbage": (bad_rig("{"), "no JSON with rig.sensors"),
    "empty rig": (bad_rig(None), "no JSON with rig.sensors"),
    "other JSON": (bad_rig("[]"), "no JSON with rig.sensors"),
    "deep JSON": (bad_rig("[" * 100_000), "no JSON with rig.sensors"),
    "no cameras": (bad_rig('{"rig": {"sensors": []}}'), "none of the seven"),
    "pinhole": (
        lambda rows: lens(rows, REAR, **{"polynomial": "1 2"}),
        "2 polynomial coefficients",
    ),
    "words in lens": (bad_lens(polynomial="0 a b c d"), "no list of numbers"),
    "no centre": (bad_lens(cx=None), "cx is None"),
    "no width": (bad_lens(width="nan"), "width is 'nan'"),
    "zero polynomial": (bad_lens(polynomial="0 0 0 0 0 0"), "all coefficients"),
    "other direction": (
        bad_lens(**{"polynomial-type": "pixeldistance-to-angle"}),
        f"{REAR.replace(':', '_')}: .*within 180 degrees",
    ),
    "flat polynomial": (bad_lens(polynomial="0 1e300 0 0 0 0"), "flat or overflows|of a lens"),
    "tiny polynomial": (
        bad_lens(**{"polynomial": "0 1e-300 0 0 0 0", "polynomial-type": ""}),
        "flat or overflows",
    ),
    "falling polynomial": (bad_lens(polynomial="0 -3000 0 0 0 0"), "does not rise"),
    "speck": (bad_lens(polynomial=TELE.replace("3675", "3675000000")), "projects nothing"),
}


@pytest.mark.filterwarnings("error")  # would be more lines
@pytest.mark.parametrize("name", BAD_TABLES)
def test_wrong_tables_are_one_line(tmp_path, name):
    damage, words = BAD_TABLES[name]
    rows = tables()
    damage(rows)
    refused(words, write_tables(tmp_path, rows))


def mounted(rows, **mounting):
    calibration = rows["calibration_estimate"][0]["calibration_estimate"]
    content = json.loads(calibration["rig_json"])
    for sensor in content["rig"]["sensors"][1:]:
        sensor["nominalSensor2Rig_FLU"] |= mounting
    calibration["rig_json"] = json.dumps(content)
    return rows


def test_cameras_that_see_nothing(tmp_path):
    up = {"roll-pitch-yaw": [0, -90, 0]}
    rows = mounted(tables(), **up)
    refused(
        "nothing of the scene is in the view of",
        write_tables(tmp_path / "a", rows),
        camera_names=REAR,
    )
    rows = mounted(tables(), t=[1700, 0, 1400])
    refused("m off the vehicle", write_tables(tmp_path / "b", rows))
    rows = mounted(tables(), t=[1, 0])
    refused("needs t", write_tables(tmp_path / "c", rows))
    rows = tables()
    del rows["obstacle"], rows["lane_line"]  # leaves a crosswalk ahead
    scene = load_scene(write_tables(tmp_path / "d", rows))
    assert (
        "camera_rear_tele_30fov sees nothing of the scene: its video will be black"
        in scene.warnings
    )
    del rows["crosswalk"]
    scene = load_scene(write_tables(tmp_path / "e", rows))
    assert "the scene holds nothing to draw: all videos will be black" in scene.warnings


def test_a_line_is_seen_between_its_vertices(tmp_path):
    rows = {k: v for k, v in tables().items() if k.startswith(("calibration", "egomotion"))}
    ends = [xyz(-5, -40, 0), xyz(-60, 300, 0)]  # across the road behind, both ends out of view
    rows["lane_line"] = [{"lane_line": {"line_rail": ends}}]
    warnings = load_scene(write_tables(tmp_path, rows), camera_names=REAR).warnings
    assert not any("sees nothing" in warning for warning in warnings)


def test_what_is_no_scene(tmp_path):
    refused("is not a folder", tmp_path / "absent")
    file = tmp_path / "file"
    file.write_text("x")
    refused("is not a folder", file)
    refused("is not a scene: .*it holds: file", tmp_path)
    (tmp_path / "pose").mkdir()
    (tmp_path / "3d_lanes").mkdir()
    refused("has no tar files in pose/ or vehicle_pose/", tmp_path)


@pytest.mark.parametrize("table", [*tables()])
@pytest.mark.parametrize("keep", [0, 100, -20])
def test_damaged_parquet(tmp_path, table, keep):
    folder = write_tables(tmp_path, tables())
    path = folder / f"{CLIP}.{table}.parquet"
    path.write_bytes(path.read_bytes()[:keep])
    refused(f"{re.escape(str(path))} is not a readable parquet file", folder)


@pytest.mark.parametrize("attribute", [*samples()])
@pytest.mark.parametrize("keep", [0, 100, 700, 1024])
def test_damaged_tar(tmp_path, attribute, keep):
    folder = write_samples(tmp_path, samples())
    path = folder / attribute / f"{CLIP}.tar"
    path.write_bytes(path.read_bytes()[:keep])
    refused(f"{re.escape(str(path))}", folder)


CAMERA = "camera_front_wide_120fov"
BAD_SAMPLES = {
    "object array": ("vehicle_pose", "000001.vehicle_pose.npy", {}, "no array of numbers"),
    "wrong shape": ("vehicle_pose", "000001.vehicle_pose.npy", np.eye(3), "must be \\(4, 4\\)"),
    "NaN": ("vehicle_pose", "000001.vehicle_pose.npy", pose(np.nan), "holds NaN"),
    "scaled": ("vehicle_pose", "000001.vehicle_pose.npy", 2 * pose(), "not a rotation"),
    "no number": ("vehicle_pose", "first.vehicle_pose.npy", pose(), "does not start with a frame"),
    "huge number": (
        "all_object_info", f"{10**30}.all_object_info.json", {}, "does not start with a frame",
    ),
    "short lens": (
        "ftheta_intrinsic", f"ftheta_intrinsic.{CAMERA}.npy", np.ones(4), "must be \\(11,\\)",
    ),
    "zero lens": (
        "ftheta_intrinsic", f"ftheta_intrinsic.{CAMERA}.npy", np.zeros(11), "too small",
    ),
    "objects of lists": ("all_object_info", "000000.all_object_info.json", [1], "must hold an obj"),
    "object without pose": (
        "all_object_info", "000000.all_object_info.json", {"7": {}}, "no object_to_world",
    ),
    "no labels": ("3d_lanelines", "lanelines.json", {}, "has no list of labels"),
    "labels without shape": ("3d_lanelines", "lanelines.json", {"labels": [{}]}, "label 0 has no"),
    "no vertices": (
        "3d_lanelines", "lanelines.json",
        {"labels": [{"labelData": {"shape3d": {"polyline3d": {}}}}]}, "no polyline3d.vertices",
    ),
    "unknown state": (
        "3d_traffic_lights_status", "aggregated_states.json",
        {"traffic_light_states": {"1": {"feature_id": "f", "state": ["blue"]}}}, "cannot be 'blue'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SAMPLES)
def test_wrong_tars_are_one_line(tmp_path, name):
    attribute, field, value, words = BAD_SAMPLES[name]
    content = samples()
    content.setdefault(attribute, {})[field] = value
    refused(words, write_samples(tmp_path, content))


def test_deeply_nested_json_is_one_line(tmp_path):
    folder = write_samples(tmp_path, samples())
    path = folder / "3d_lanelines" / f"{CLIP}.tar"
    with tarfile.open(path, "w") as tar:
        data = b"[" * 100_000
        member = tarfile.TarInfo(f"{CLIP}.lanelines.json")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    refused("lanelines.json is no JSON", folder)


def test_a_camera_whose_name_leads_elsewhere(tmp_path):
    rows = tables()
    calibration = rows["calibration_estimate"][0]["calibration_estimate"]
    calibration["rig_json"] = calibration["rig_json"].replace(REAR, "camera/../../up")
    folder = write_tables(tmp_path, rows)
    refused("cannot name a folder", folder, camera_names="camera/../../up")


def test_tars_without_poses(tmp_path):
    folder = write_samples(tmp_path, samples(frames=1))
    refused("1 poses; at least 2", folder)
    shutil.rmtree(folder / "pose")
    refused("lacks pose/clip.tar", folder)
    refused("30 frames per second", folder, fps=10)
