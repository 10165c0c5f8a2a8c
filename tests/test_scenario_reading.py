"""Reading scenes of both formats: what comes out, and what is counted as odd."""

import json

import numpy as np
import pytest
from small_scenes import (
    CLIP,
    REAR,
    START,
    observation,
    pose,
    refused,
    samples,
    tables,
    write_samples,
    write_tables,
    xyz,
)

from jaxvid.scenario.clipgt import even_times
from jaxvid.scenario.interpolation import boxes_at
from jaxvid.scenario.load import load_scene
from jaxvid.scenario.rdshq_map import cuboid
from jaxvid.scenario.rdshq_tracks import average_pose


def test_tables_become_a_scene(tmp_path):
    scene = load_scene(write_tables(tmp_path, tables()))
    assert (scene.id, scene.format, scene.world, scene.frames) == (CLIP, "clipgt", "rdf", 31)
    assert list(scene.cameras) == ["camera_front_wide_120fov", "camera_rear_tele_30fov"]
    assert [track.id for track in scene.tracks] == ["12", "7"]  # ascending as strings
    assert [line.style for line in scene.lane_lines] == ["WHITE UNKNOWN", "WHITE SOLID_SINGLE"]
    front = scene.cameras["camera_front_wide_120fov"].to_world
    np.testing.assert_allclose(front[:, :3, :3], np.broadcast_to(np.eye(3), (31, 3, 3)), atol=1e-6)
    np.testing.assert_allclose(front[15, :3, 3], (0, -1.4, 6.7), atol=1e-5)  # right, down, forward
    boxes = boxes_at(scene.tracks, START + 450_000)
    np.testing.assert_allclose(boxes.centers[1], (-2, -0.75, 19.5), atol=1e-5)
    ahead = boxes.rotations[1] @ [1, 0, 0]
    np.testing.assert_allclose(ahead, (0, 0, 1), atol=1e-6)


def test_both_formats_agree(tmp_path):
    ours = load_scene(write_tables(tmp_path / "tables", tables()))
    theirs = load_scene(write_samples(tmp_path / "samples", samples()))
    assert (theirs.format, theirs.world, theirs.frames) == ("rdshq", "flu", 6)
    rdf = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]])
    line, flu = ours.lane_lines[0].points, theirs.lane_lines[0].points
    np.testing.assert_array_equal(line, flu @ rdf.T)
    name = "camera_front_wide_120fov"
    point = np.array([20.0, -3.0, 0.5])
    seen = []
    for scene, place in ((ours, rdf @ point), (theirs, point)):
        camera = scene.cameras[name]
        local = np.linalg.inv(camera.to_world[0]) @ [*place, 1]
        seen.append(camera.model.project(local[:3])[0])
    np.testing.assert_allclose(*seen, atol=1e-3)
    x, y = (seen[0] - camera.model.center) * 1.0576e-3  # radians, nearly
    np.testing.assert_allclose((x, y), (np.arctan(3 / 18.3), np.arctan(0.9 / 18.3)), rtol=0.03)


def test_warnings_count_what_is_odd_but_loads(tmp_path):
    rows = tables()
    times = [row["key"]["timestamp_micros"] for row in rows["egomotion_estimate"]]
    rows["obstacle"] += [observation("once", times[3], 10)]
    rows["obstacle"] += [observation("labelstore:7", t, 10) for t in times]
    rows["obstacle"] += [observation("dog", t, 10, "animal") for t in times]
    rows["crosswalk"] += [{"crosswalk": {"location": [xyz(1, 2, 3)] * 2}}]
    rows["crosswalk"] += [{"crosswalk": {"location": [xyz(1, 2, np.nan)] * 3}}]
    rows["crosswalk"] += [{"crosswalk": {"location": [xyz(x, 2, 0) for x in (0, 1_500, 0)]}}]
    scene = load_scene(write_tables(tmp_path, rows))
    assert [t.kind for t in scene.tracks] == ["Car", "Car", "Other"]
    assert len(scene.crosswalks) == 1
    for warning in (
        "missing cameras of the usual seven: 5 (camera_front_tele_30fov, ",
        "missing optional tables: 6 (road_boundary, ",
        "tracks left out, fewer than two observations: 1 (once)",
        "tracks left out, labelstore: repeats of others: 1",
        "tracks of unknown class, drawn as Other: 1 (animal)",
        "lane lines of unknown colour or style: 1 (WHITE DASHED)",
        "crosswalks left out, fewer than 3 points: 1",
        "crosswalks left out, NaN or huge coordinates: 1",
        "crosswalks left out, over 2 km (write metres): 1",
    ):
        assert any(found.startswith(warning) for found in scene.warnings), (warning, scene.warnings)


def test_lights_without_dimensions_and_with_a_state(tmp_path):
    rows = tables()
    turn = {"x": 0.0, "y": 0.0, "z": 0.0, "w": 2.0}
    light = {
        "center": xyz(9, 1, 5),
        "orientation": turn,
        "dimensions": {"x": None, "y": 1.0, "z": 1.0},
    }
    rows["traffic_light"] = [
        {"traffic_light": {**light, "state": "RED"}},
        {"traffic_light": {**light, "state": None}},
        {"traffic_light": {**light, "center": None, "state": None}},
    ]
    sign = {**light, "dimensions": None, "state": "bent"}  # a column without any dimensions
    rows["traffic_sign"] = [{"traffic_sign": sign}]
    scene = load_scene(write_tables(tmp_path, rows))
    np.testing.assert_allclose(scene.traffic_signs[0].size, (0.8, 0.3, 0.8), atol=1e-6)
    assert len(scene.traffic_lights) == 2
    first, second = scene.traffic_lights
    assert first.states == ("red",) * scene.frames
    assert second.states is None
    np.testing.assert_allclose(first.size, (0.6, 0.6, 1.0), atol=1e-6)
    np.testing.assert_allclose(first.center, (-1, -5, 9))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (None, ["camera_front_wide_120fov", "camera_rear_tele_30fov"]),
        ("all", ["camera_front_wide_120fov", "camera_rear_tele_30fov"]),
        ([REAR], ["camera_rear_tele_30fov"]),
        ("camera_rear_tele_30fov, camera:rear:tele:30fov", ["camera_rear_tele_30fov"]),
    ],
)
def test_camera_names_in_either_spelling(tmp_path, names, found):
    assert list(load_scene(write_tables(tmp_path, tables()), None, names).cameras) == found


@pytest.mark.parametrize("asked", ["camera:front:tele:sat:30fov", "camera_front_tele_30fov"])
def test_the_documented_name_of_the_tele_camera(tmp_path, asked):
    rows = tables()
    calibration = rows["calibration_estimate"][0]["calibration_estimate"]
    calibration["rig_json"] = calibration["rig_json"].replace(REAR, "camera:front:tele:sat:30fov")
    scene = load_scene(write_tables(tmp_path, rows), None, [asked])
    assert list(scene.cameras) == ["camera_front_tele_30fov"]


def test_unknown_cameras_are_answered_with_those_present(tmp_path):
    folder = write_tables(tmp_path / "tables", tables())
    both = "there is: camera_front_wide_120fov, camera_rear_tele_30fov"
    refused(f"no camera camera:up in .*; {both}", folder, camera_names=["camera:up"])
    refused("no cameras named", folder, camera_names=[])
    folder = write_samples(tmp_path / "samples", samples())
    refused("no camera top in .*; there is: camera_front_wide", folder, camera_names="top")


def test_which_clip_is_meant(tmp_path):
    folder = write_tables(tmp_path / "b", tables(), "a")
    assert load_scene(folder).id == "a"
    write_tables(folder, tables(), "c")
    refused("holds 2 clips; choose one of: a, c", folder)
    refused("has no clip x; there is: a, c", folder, clip_id="x")
    (folder / "._a.calibration_estimate.parquet").write_bytes(b"as macOS leaves them")
    (folder / "._a.egomotion_estimate.parquet").write_bytes(b"as macOS leaves them")
    refused("there is: a, c", folder, clip_id="x")
    assert load_scene(folder, "c").id == "c"
    write_tables(folder, tables(), "b")
    assert load_scene(folder).id == "b"  # named as the folder
    content = samples()
    write_samples(write_samples(tmp_path / "tars", content, "a"), content, "b")
    refused("holds 2 clips; choose one of: a, b", tmp_path / "tars")
    (tmp_path / "tars" / "pose" / "._a.tar").write_bytes(b"as macOS leaves them")
    refused("holds 2 clips", tmp_path / "tars")
    assert load_scene(tmp_path / "tars", "b").id == "b"


def test_frame_rate_and_the_number_of_frames(tmp_path):
    folder = write_tables(tmp_path, tables())
    scene = load_scene(folder, fps=10)
    assert (scene.fps, scene.frames) == (10, 11)
    np.testing.assert_array_equal(scene.timestamps, scene.pose_times)
    refused("-1 fps", folder, fps=-1)
    assert len(even_times(0, 4_100_000, 30.0)) == 123  # float products, as upstream


def test_recorded_frame_times(tmp_path):
    folder = write_tables(tmp_path, tables())
    path = folder / f"{CLIP}.camera_front_wide_120fov.json"
    times = [START - 50_000, START + 1, START + 30_001, START + 1_040_000]
    path.write_text(json.dumps([{"timestamp": t} for t in times]))
    scene = load_scene(folder)
    assert scene.timestamps.tolist() == times
    ends = scene.ego_to_world[[0, -1], 2, 3]
    np.testing.assert_allclose(ends, (-0.5, 10.4), atol=1e-4)
    refused("10 fps, but .* says when frames are", folder, fps=10)
    path.write_text(json.dumps([{"timestamp": t} for t in times[::-1]]))
    refused("timestamps do not increase", folder)
    path.write_text(json.dumps([{"timestamp": t * 1000} for t in times]))
    refused("lie outside the poses'", folder)
    path.write_text("[{")
    scene = load_scene(folder)
    assert scene.frames == 31
    assert any(w.startswith("unreadable file of frame times") for w in scene.warnings)


CAMERA = "camera_front_wide_120fov"


def test_cameras_without_vehicle_or_lens(tmp_path):
    content = samples()
    whole = load_scene(write_samples(tmp_path / "whole", content))
    del content["vehicle_pose"], content["ftheta_intrinsic"]
    scene = load_scene(write_samples(tmp_path / "part", content))
    ours, theirs = scene.cameras[CAMERA], whole.cameras[CAMERA]
    np.testing.assert_allclose(ours.to_world, theirs.to_world, atol=1e-5)
    np.testing.assert_allclose(scene.ego_to_world[0, :3, :3], np.eye(3), atol=1e-6)
    np.testing.assert_allclose(ours.model.center, (954.2063, 757.15415))
    assert any(w.startswith("cameras with the default lens") for w in scene.warnings)


def test_objects_of_tars(tmp_path):
    content = samples()
    last = content["all_object_info"]["000003.all_object_info.json"]
    last["7"]["object_to_world"] = pose(18).tolist()
    del last["7"]["object_lwh"]
    last["8"] = last["7"]
    scene = load_scene(write_samples(tmp_path, content))
    (track,) = scene.tracks
    assert "tracks left out, fewer than two observations: 1 (8)" in scene.warnings
    np.testing.assert_allclose(boxes_at(scene.tracks, 50_000).centers[0], (16.5, 0, 0), atol=1e-5)
    np.testing.assert_allclose(track.sizes[1], (4.5, 1.9, 1.5), atol=1e-6)
    present = [len(boxes_at(scene.tracks, int(t)).ids) for t in scene.timestamps]
    assert present == [1, 1, 1, 1, 0, 0]  # no extrapolation


def test_static_objects_stay_at_their_average(tmp_path):
    poses = np.stack([pose(x).astype(float) for x in (1, 2, 6)])
    np.testing.assert_allclose(average_pose(poses), pose(3), atol=1e-12)
    poses[2, :2, :2] *= -1  # turned around: its place does not count
    np.testing.assert_allclose(average_pose(poses[[0, 1, 0, 1, 2]]), pose(1.5), atol=1e-12)
    opposite = poses[[0, 2]]
    np.testing.assert_array_equal(average_pose(opposite), opposite[0])


def test_boxes_from_corners():
    signs = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)])
    corners = np.array([(*s, z) for z in (1, -1) for s in signs]) * (2, 1, 0.5) + (9, 8, 7)
    center, rotation, size = cuboid(corners)
    np.testing.assert_allclose(center, (9, 8, 7))
    np.testing.assert_allclose(size, (4, 2, 1))
    np.testing.assert_allclose(rotation, np.diag((-1, -1, 1)), atol=1e-7)
    assert cuboid(corners[:7]) is None
    assert cuboid(corners * (1, 1, 0)) is None


def test_styles_that_are_no_words_are_counted(tmp_path):
    content = samples()
    shape = content["3d_lanelines"]["lanelines.json"]["labels"][0]["labelData"]["shape3d"]
    listed = {"enumsList": {"enumsList": [{}]}}
    shape["attributes"] = [{"name": "colors", **listed}, {"name": "styles", **listed}]
    scene = load_scene(write_samples(tmp_path, content))
    assert [line.style for line in scene.lane_lines] == ["UNKNOWN UNKNOWN"]
    assert "lane lines of unknown colour or style: 1 ({} {})" in scene.warnings
