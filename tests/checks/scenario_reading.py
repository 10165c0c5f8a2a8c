"""Goldens of scene readers: f-theta camera, interpolation, poses and objects of whole scenes."""

import re

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file
from scipy.spatial.transform import Rotation

from jaxvid.scenario.axes import object_to_rdf, to_rdf, vehicle_to_rdf
from jaxvid.scenario.camera import to_camera
from jaxvid.scenario.clipgt import FPS, even_times
from jaxvid.scenario.clipgt_tracks import EXTRAPOLATION_US
from jaxvid.scenario.fitting import polynomial, slope
from jaxvid.scenario.interpolation import boxes_at, interpolate_poses
from jaxvid.scenario.load import load_scene
from jaxvid.scenario.rig import camera_model, camera_to_rig
from jaxvid.scenario.scene import Track

NEAR_AXIS = 5e-4  # radians; upstream is wrong nearer to the axis, but not on it
FAR = 2000  # pixels from the centre, where tolerances become relative


def ftheta(case):
    for name, camera in case.config["cameras"].items():
        model = camera_model({"properties": camera["properties"]}, name)
        if camera["resize_hw"] is not None:
            model = model.rescale(*camera["resize_hw"], truncate=True)
        arrays = {k[len(name) + 1 :]: v for k, v in case.io.items() if k.startswith(f"{name}.")}
        check_model(model, arrays, name)
        for xp in (np, jnp):
            check_projection(model, arrays, xp, f"{name} {xp.__name__}")
        points = arrays["points_cam"]
        check_pixels(model.project_upstream(points)[0], points, arrays, "uv", f"{name} upstream")


def check_model(model, arrays, name):
    np.testing.assert_array_equal(model.size, arrays["size_wh"], name)
    np.testing.assert_allclose(model.center, arrays["center"], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(model.linear, arrays["A"], atol=1e-7, err_msg=name)
    np.testing.assert_allclose(model.max_angle, arrays["max_ray_angle"][0], atol=1e-6, err_msg=name)
    angles = np.linspace(0, arrays["max_ray_angle"][0], 1000)
    radii = np.linspace(0, arrays["max_ray_distortion"][0], 1000)
    for key, ours, x, atol in (
        ("fw_poly", model.forward, angles, 0.002),
        ("bw_poly", model.backward, radii, 1e-6),
    ):
        actual = polynomial(ours.astype(np.float64), x)
        np.testing.assert_allclose(actual, polynomial(arrays[key], x), atol=atol, err_msg=name)
    edge = (model.radius(model.max_angle), slope(model.forward, model.max_angle))
    np.testing.assert_allclose(edge, arrays["max_ray_distortion"], rtol=1e-5, err_msg=name)


def check_projection(model, arrays, xp, name):
    points = arrays["points_cam"]
    uv, depth = model.project(points, xp)
    np.testing.assert_array_equal(depth, points[:, 2], name)
    check_pixels(uv, points, arrays, "uv", name)
    check_pixels(uv, points, arrays, "uv_np", name)
    rays, valid = model.unproject(arrays["pixels"], xp)
    np.testing.assert_allclose(rays, arrays["rays"], atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(valid, arrays["rays_valid"] != 0, name)
    uv, depth = model.project(to_camera(arrays["points_world"], arrays["cam_to_world"], xp), xp)
    check_pixels(uv, points, arrays, "xy_depth", name)
    np.testing.assert_allclose(depth, arrays["xy_depth"][:, 2], atol=1e-3, err_msg=name)


def check_pixels(actual, points, arrays, key, name):
    """The tolerances of the case; rows near the optical axis, ahead or behind, do not count."""
    x, y, z = points.astype(np.float64).T
    angle = np.arctan2(np.hypot(x, y), np.abs(z))
    center, wanted = arrays["center"], arrays[key][:, :2].astype(np.float64)
    distance = np.linalg.norm(wanted - center, axis=1)
    near = 0.05 + 2e-7 * arrays["fw_poly"][1] / np.maximum(angle, NEAR_AXIS)
    limit = np.where(distance < FAR, near, 1e-4 * np.linalg.norm(wanted, axis=1))
    error = np.linalg.norm(np.asarray(actual) - wanted, axis=1)
    compared = angle >= NEAR_AXIS
    assert compared.any()
    worst = np.argmax(np.where(compared, error - limit, -np.inf))
    assert error[worst] <= limit[worst], (name, key, points[worst], error[worst], limit[worst])
    if key != "xy_depth":  # on its way through the world a point leaves the axis
        on_axis = np.asarray(actual)[angle == 0]
        np.testing.assert_allclose(on_axis, np.broadcast_to(center, on_axis.shape), atol=1e-3)


def interp(case):
    io = case.io
    times = io["key_timestamps"]
    positions = to_rdf(io["key_positions_flu"])
    turns = vehicle_to_rdf(Rotation.from_quat(io["key_quats_xyzw_flu"]))
    grids = {
        "uniform30": even_times(times[0], times[-1], FPS),
        "camera_ts": io["camera_timestamps"].astype(np.float64),
    }
    for name, grid in grids.items():
        np.testing.assert_array_equal(grid.astype(np.int64), io[f"{name}.timestamps"], name)
        poses = interpolate_poses(times, positions, turns, grid)
        check_matrices(poses, io[f"{name}.ego_to_world"], name)
        np.testing.assert_allclose(poses[:, :3, 3], io[f"{name}.positions_rdf"], atol=2e-5)
    ego = interpolate_poses(times, positions, turns, grids["uniform30"])
    mountings = zip(io["extrinsics_t_flu"], io["extrinsics_rpy_deg"], strict=True)
    for i, (position, angles) in enumerate(mountings):
        sensor = {"nominalSensor2Rig_FLU": {"t": position, "roll-pitch-yaw": angles}}
        to_rig = camera_to_rig(sensor, f"camera {i}")
        check_matrices(to_rig, io["extrinsics_cam_to_rig_rdf"][i], f"camera {i}")
        check_matrices(ego @ to_rig, io["uniform30.cam_to_world"][i], f"camera {i}")
    names = sorted({found[0] for key in io if (found := re.match(r"track[^.]*", key))})
    assert names
    for name in names:
        check_track({k.split(".")[1]: v for k, v in io.items() if k.startswith(f"{name}.")}, name)


def check_track(arrays, name):
    times = arrays["timestamps"]
    turns = object_to_rdf(Rotation.from_quat(arrays["quats_xyzw_flu"]))
    centers = to_rdf(arrays["centers_flu"])
    sizes = arrays["sizes"]
    track = Track(name, "Car", "car", times, centers, turns, sizes, True, EXTRAPOLATION_US)
    repeated = times[1:][np.diff(times) == 0]  # either key will do there
    for i, time in enumerate(arrays["query"]):
        boxes = boxes_at((track,), time)
        assert len(boxes.ids) == arrays["present"][i], (name, time)
        if not boxes.ids or time in repeated:
            continue
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = boxes.rotations[0], boxes.centers[0]
        check_matrices(pose, arrays["object_to_world_rdf"][i], f"{name} at {time}")
        np.testing.assert_allclose(boxes.sizes[0], arrays["dims"][i], atol=1e-6)


def check_matrices(actual, wanted, name):
    rotation, position = np.s_[..., :3, :3], np.s_[..., :3, 3]
    np.testing.assert_allclose(actual[rotation], wanted[rotation], atol=2e-6, err_msg=name)
    np.testing.assert_allclose(actual[position], wanted[position], atol=2e-5, err_msg=name)


def scene_contents(case):
    """The part of `world_scenario/scene` that needs no drawing: times, cameras, objects."""
    scene = load_scene(case.folder / "input", None, case.config["cameras"])
    poses = load_file(case.folder / "poses.safetensors")
    assert (scene.id, scene.frames) == (case.config["scene_id"], case.config["num_frames"])
    np.testing.assert_array_equal(scene.timestamps, poses["timestamps"])
    assert list(scene.cameras) == case.config["cameras"]
    for name, camera in scene.cameras.items():
        check_matrices(camera.to_world, poses[f"cam_to_world.{name}"], name)
    for frame, objects in case.json("objects.json").items():
        boxes = boxes_at(scene.tracks, int(scene.timestamps[int(frame)]))
        assert list(boxes.ids) == sorted(objects), frame
        for i, track in enumerate(boxes.ids):
            wanted, pose = objects[track], np.eye(4)
            pose[:3, :3], pose[:3, 3] = boxes.rotations[i], boxes.centers[i]
            check_matrices(pose, np.array(wanted["object_to_world"]), f"{track} in frame {frame}")
            np.testing.assert_allclose(boxes.sizes[i], wanted["object_lwh"], atol=1e-6)
            assert boxes.kinds[i] == wanted["object_type"], track
    return scene


CHECKS = {"world_scenario/ftheta": ftheta, "world_scenario/interp": interp}
