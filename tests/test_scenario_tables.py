"""Tables written from arrays read back as they were; the synthetic scene is a plausible one."""

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxvid.scenario import calibration, check, synthetic, tables, visibility
from jaxvid.scenario.camera import make_camera
from jaxvid.scenario.interpolation import boxes_at
from jaxvid.scenario.load import load_scene
from jaxvid.scenario.scene import CAMERAS

TO_RDF = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
START = 1_700_000_000_000_000
LINE = np.array([[0.0, 0, 0], [10, 1, 0.1], [20, 3, 0.2]])
STILL = np.array([[0.0, 0, 0, 1]])


def lens(**changes) -> calibration.CameraCalibration:
    fields = {
        "name": "camera:front:wide:120fov",
        "width": 640,
        "height": 360,
        "center": (320, 180),
        "polynomial": calibration.pinhole_polynomial(300, 640, 360),
        "direction": "pixeldistance-to-angle",
        "position": (1.5, 0, 1.4),
        "angles": (0, 0, 0),
    }
    return calibration.CameraCalibration(**fields | changes)


def write_drive(folder, n: int = 11):
    times = START + 100_000 * np.arange(n)
    positions = np.stack([np.arange(n), np.zeros(n), np.zeros(n)], axis=-1)
    tables.write_egomotion(folder, "log", times, positions, np.repeat(STILL, n, axis=0))
    calibration.write_calibration(folder, "log", [lens()])
    return times


def test_what_is_written_is_read(tmp_path):
    times = write_drive(tmp_path)
    turn = Rotation.from_euler("z", 30, degrees=True)
    boxes = np.array([[10.0, 2, 0.75], [11.0, 2, 0.75]]), np.tile([4.5, 1.9, 1.5], (2, 1))
    tables.write_obstacles(
        tmp_path, "log", [7, 7], ["car", "car"], times[[0, 10]], *boxes, [turn.as_quat()] * 2
    )
    tables.write_lane_lines(tmp_path, "log", [LINE, LINE + 1], ["YELLOW", "WHITE"], ["X", "SOLID"])
    tables.write_elements(tmp_path, "log", "road_boundary", [LINE])
    tables.write_elements(tmp_path, "log", "wait_line", [LINE[:2]])
    tables.write_elements(tmp_path, "log", "pole", [LINE[:1]])
    tables.write_elements(tmp_path, "log", "crosswalk", [LINE, LINE])
    tables.write_elements(tmp_path, "log", "road_marking", [])
    tables.write_lanes(tmp_path, "log", [LINE], [LINE - 3])
    for table in ("traffic_light", "traffic_sign"):
        tables.write_boxes(tmp_path, "log", table, LINE[:1], [[0.3, 0.4, 1.0]], [turn.as_quat()])
    scene = load_scene(tmp_path)
    assert (scene.id, scene.frames, scene.world) == ("log", 31, "rdf")
    np.testing.assert_allclose(scene.ego_to_world[-1, :3, 3], [0, 0, 10], atol=1e-5)
    (track,) = scene.tracks
    assert (track.id, track.kind) == ("7", "Car")
    np.testing.assert_allclose(track.centers, boxes[0] @ TO_RDF.T, atol=1e-6)
    box = boxes_at(scene.tracks, int(times[5]))
    np.testing.assert_allclose(box.rotations[0], TO_RDF @ turn.as_matrix(), atol=1e-6)
    np.testing.assert_allclose(scene.lane_lines[1].points, (LINE + 1) @ TO_RDF.T, atol=1e-6)
    assert len(scene.road_boundaries) == len(scene.wait_lines) == len(scene.poles) == 1
    assert (len(scene.crosswalks), len(scene.road_markings)) == (2, 0)
    np.testing.assert_allclose(scene.traffic_signs[0].size, [0.3, 0.4, 1.0], atol=1e-6)
    camera = scene.cameras["camera_front_wide_120fov"]
    np.testing.assert_allclose(camera.to_world[0, :3, 3], [0, -1.4, 1.5], atol=1e-6)


def test_recorded_frame_times_are_used(tmp_path):
    times = write_drive(tmp_path)
    tables.write_frame_times(tmp_path, "log", times[2:6] + 5)
    np.testing.assert_array_equal(load_scene(tmp_path).timestamps, times[2:6] + 5)


@pytest.mark.parametrize(
    "table, arguments, message",
    [
        ("egomotion", ([0, 1], LINE[:2], np.zeros((2, 4))), "orientation of row 0 is zero"),
        ("egomotion", ([START], LINE[:1], STILL), "1 poses; at least 2"),
        ("egomotion", ([0.0, 1.0], LINE[:2], [STILL[0]] * 2), "must be .n,. integers"),
        ("egomotion", ([0, 10**8], LINE[:2], [STILL[0]] * 2), "look like nanoseconds"),
        ("egomotion", ([100000, 0], LINE[:2], [STILL[0]] * 2), "do not increase"),
        ("egomotion", ([0, 100000], LINE, [STILL[0]] * 2), "2 timestamps, 3 positions"),
        ("egomotion", ([0, 100000], LINE[:2] * np.nan, [STILL[0]] * 2), "positions holds NaN"),
        ("lane_lines", ([LINE[:1]], ["WHITE"], ["SOLID"]), "element 0 has 1 points"),
        ("lane_lines", ([LINE], [], ["SOLID"]), "0 colors"),
        ("elements", ("crosswalk", [LINE[:2]]), "give 3 or more"),
        ("elements", ("trees", [LINE]), "no table of lines or areas; use road_boundary"),
        ("elements", ("pole", [LINE[:, :2]]), r"shape \(n, 3\), not \(3, 2\)"),
        ("elements", ("pole", [[[1, 2], [1, 2, 3]]]), r"element 0 must be \(n, 3\) numbers"),
        ("elements", ("pole", [[["a", "b", "c"]]]), r"must be \(n, 3\) numbers: could not"),
        ("boxes", ("traffic_sign", LINE, LINE, STILL), "3 centers, 3 sizes, 1 rotations"),
        ("boxes", ("traffic_sign", LINE[:1], -LINE[1:2], STILL), "size is negative"),
        ("boxes", ("light", LINE[:1], LINE[:1], STILL), "use traffic_light or traffic_sign"),
        ("frame_times", (np.zeros(0, int),), "there are none; leave the file out"),
        (
            "egomotion",
            (np.zeros(0, int), np.zeros((0, 3)), np.zeros((0, 4))),
            "0 poses; at least 2",
        ),
        (
            "obstacles",
            ([], [], np.zeros(0, int), np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 4))),
            "there are none; leave the table out",
        ),
    ],
)
def test_wrong_arrays_are_refused_in_one_line(tmp_path, table, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        getattr(tables, f"write_{table}")(tmp_path, "log", *arguments)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_clip_id_has_to_be_a_file_name(tmp_path):
    with pytest.raises(ValueError, match="neither dots nor slashes"):
        calibration.write_calibration(tmp_path, "a/b", [lens()])
    with pytest.raises(ValueError, match="neither dots nor slashes"):
        tables.write_frame_times(tmp_path, "../b", [0, 1])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"polynomial": (0, 1)}, "2 coefficients"),
        ({"polynomial": (0,) * 5}, "all coefficients of the polynomial are zero"),
        ({"direction": "inverse"}, "use pixeldistance-to-angle or"),
        ({"position": (1500, 0, 1400)}, "write metres"),
        ({"angles": (0, np.nan, 0)}, "give degrees"),
        ({"width": 0}, "too small"),
        ({"center": (320,)}, "give 2 numbers"),
        ({"position": (0, 1.4)}, "give 3 numbers"),
        ({"angles": (0, 0)}, "give 3 numbers"),
        ({"name": "camera/../../x"}, "neither slashes nor commas"),
    ],
)
def test_wrong_calibrations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        lens(**changes)


def test_calibrations_of_numpy_numbers_are_written(tmp_path):
    write_drive(tmp_path)
    arrays = {"position": np.array([1, 0, 2]), "angles": np.array([0, 0, 5], np.float32)}
    calibration.write_calibration(tmp_path, "log", [lens(width=np.int64(640), **arrays)])
    tables.write_lane_lines(tmp_path, "log", [LINE], ["WHITE"], ["SOLID_SINGLE"])
    assert load_scene(tmp_path).cameras[CAMERAS[0]].model.width == 640


def test_two_cameras_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="occurs twice"):
        pair = [lens(), lens(name="camera_front_wide_120fov")]
        calibration.write_calibration(tmp_path, "log", pair)


def test_a_pinhole_camera_keeps_its_pixels():
    """Field of view of 120 degrees; the fit is off by 2.3 pixels at most, in the corners."""
    focal, width, height = 554.0, 1920, 1080
    polynomial = calibration.pinhole_polynomial(focal, width, height)
    camera = make_camera((960, 540), (width, height), polynomial, backward=True)
    x, y = np.meshgrid(np.linspace(-1.7, 1.7, 15), np.linspace(-0.9, 0.9, 9))
    points = np.stack([x, y, np.ones_like(x)], axis=-1)
    expected = points[..., :2] * focal + np.array([960, 540])
    np.testing.assert_allclose(camera.project(points)[0], expected, atol=2.5)


def test_optical_axes_become_angles():
    along_x = TO_RDF.T  # looks forward: right is -y, down is -z
    np.testing.assert_allclose(calibration.optical_angles(along_x), 0, atol=1e-9)
    left = Rotation.from_euler("xyz", [3, 5, 90], degrees=True).as_matrix()
    np.testing.assert_allclose(calibration.optical_angles(left @ along_x), [3, 5, 90], atol=1e-6)
    with pytest.raises(ValueError, match="not a rotation"):
        calibration.optical_angles(2 * along_x)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return load_scene(synthetic.synthetic_scene(3, tmp_path_factory.mktemp("scene"), "made"))


def test_the_synthetic_scene_has_what_it_promises(scene):
    assert tuple(scene.cameras) == CAMERAS
    assert (scene.frames, scene.fps) == (300, 30)
    moved = [np.linalg.norm(t.centers[-1] - t.centers[0]) > 3 for t in scene.tracks]
    assert sum(moved) >= 20
    assert {t.kind for t in scene.tracks} == {"Car", "Truck", "Pedestrian", "Cyclist", "Other"}
    assert all(getattr(scene, field) for field in check.ELEMENTS)
    assert len(visibility.seen_tracks(scene)) >= 30


def test_equal_seeds_give_equal_scenes(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthetic.synthetic_scene(seed, tmp_path / name, "x", seconds=0.5)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    equal = {n: [(tmp_path / f / n).read_bytes() for f in "abc"] for n in files}
    assert all(a == b for a, b, _ in equal.values())
    assert any(a != c for a, _, c in equal.values())


@pytest.mark.parametrize("seconds", [0.1, 13, float("nan")])
def test_a_synthetic_scene_has_a_length_within_limits(tmp_path, seconds):
    with pytest.raises(ValueError, match="outside"):
        synthetic.synthetic_scene(0, tmp_path, seconds=seconds)


def test_objects_stand_on_the_road(scene):
    """Their lower face is as high as the nearest curb, to 35 cm: the road is arched and rolls."""
    curbs = np.concatenate(scene.road_boundaries)
    boxes = boxes_at(scene.tracks, int(scene.timestamps[0]))
    for center, size in zip(boxes.centers, boxes.sizes, strict=True):
        near = curbs[np.argmin(np.linalg.norm((curbs - center)[:, [0, 2]], axis=1))]
        assert abs(center[1] + size[2] / 2 - near[1]) < 0.35


@pytest.mark.parametrize("seed", range(4))
def test_objects_do_not_overlap(tmp_path, seed):
    scene = load_scene(synthetic.synthetic_scene(seed, tmp_path), camera_names=CAMERAS[:1])
    for frame in range(0, scene.frames, 15):
        shapes = footprints(scene, frame)
        for (a, first), (b, second) in itertools.combinations(shapes.items(), 2):
            assert not overlap(first, second), f"{a} and {b} in frame {frame}"


def footprints(scene, frame: int) -> dict[str, tuple]:
    """Centre (2,), axes (2, 2) and half sizes (2,) on the ground, of all objects and the ego."""
    boxes = boxes_at(scene.tracks, int(scene.timestamps[frame]))
    ego = scene.ego_to_world[frame]
    found = {"ego": (ego[[0, 2], 3] + 1.4 * ego[[0, 2], 2], ego[[0, 2]][:, [2, 0]].T, [2.4, 1.0])}
    for name, center, rotation, size in zip(
        boxes.ids, boxes.centers, boxes.rotations, boxes.sizes, strict=True
    ):
        found[name] = center[[0, 2]], rotation[[0, 2], :2].T, size[:2] / 2
    return found


def overlap(first, second) -> bool:
    """Whether two rectangles share points: no axis separates them."""
    apart = second[0] - first[0]
    if np.linalg.norm(apart) > 15:
        return False
    for axis in (*first[1], *second[1]):
        reach = sum(abs(shape[1] @ axis) @ np.asarray(shape[2]) for shape in (first, second))
        if abs(apart @ axis) > reach:
            return False
    return True
