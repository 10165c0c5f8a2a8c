"""The f-theta camera and interpolation: what must hold for every lens and every track."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxvid.scenario.camera import FTheta, make_camera, to_camera
from jaxvid.scenario.interpolation import boxes_at, interpolate_poses
from jaxvid.scenario.lenses import DEFAULT_LENSES
from jaxvid.scenario.scene import Track


def lens(name: str) -> FTheta:
    cx, cy, width, height, *coefficients, backward = DEFAULT_LENSES[name]
    return make_camera((cx, cy), (width, height), coefficients, bool(backward))


LENSES = {name: lens(name) for name in DEFAULT_LENSES}
TILTED = make_camera(
    (954, 757), (1920, 1080), DEFAULT_LENSES["camera_front_wide_120fov"][4:10], True,
    ((1.01, -4e-3), (6e-3, 1)),
)  # fmt: skip
MODELS = [*LENSES.values(), TILTED, TILTED.rescale(180, 320), TILTED.rescale(400, 1600)]


@pytest.mark.parametrize("model", MODELS, ids=range(len(MODELS)))
def test_projecting_the_inverse_of_a_pixel_returns_the_pixel(model):
    random = np.random.default_rng(0)
    pixels = random.uniform(0, model.size, (2000, 2)).astype(np.float32)
    rays, valid = model.unproject(pixels)
    assert valid.all()
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-6)
    again, depth = model.project(rays * random.uniform(0.5, 200, (2000, 1)))
    # One polynomial is only fitted to the other: at most 0.055 pixels on these lenses.
    np.testing.assert_allclose(again, pixels, atol=0.06)
    np.testing.assert_array_equal(depth > 0, rays[:, 2] > 0)


def test_projection_is_the_same_in_jax_and_numpy():
    points = np.random.default_rng(1).normal(size=(500, 3)).astype(np.float32) * (20, 10, 40)
    for model in MODELS:
        ours, depth = jax.jit(lambda m, p: m.project(p, jnp))(model, points)
        numpy, _ = model.project(points)
        # Far outside the image pixels are large numbers; float32 is relative.
        np.testing.assert_allclose(ours, numpy, rtol=2e-5, atol=2e-3)
        np.testing.assert_allclose(depth, points[:, 2], rtol=1e-6)
        pixels = np.random.default_rng(2).uniform(0, model.size, (50, 2))
        rays, _ = jax.jit(lambda m, p: m.unproject(p, jnp))(model, pixels)
        np.testing.assert_allclose(rays, model.unproject(pixels)[0], atol=2e-6)


def test_calibration_by_gradients_finds_centre_and_polynomial():
    model = LENSES["camera_rear_left_70fov"]
    points = np.random.default_rng(3).uniform((-8, -5, 10), (8, 5, 30), (200, 3))
    seen, _ = model.project(points)

    def loss(change):
        center, forward = model.center + change[:2], model.forward * (1 + 1e-3 * change[2])
        uv, _ = model._replace(center=center, forward=forward).project(points, jnp)
        return jnp.mean((uv - seen) ** 2)

    start = jnp.array([4.0, -3.0, 5.0])
    step = jnp.linalg.solve(jax.hessian(loss)(start), jax.grad(loss)(start))
    assert loss(start) > 10
    assert loss(start - step) < 1e-3


def test_gradient_is_finite_on_the_axis_and_right_beside_it():
    model = LENSES["camera_front_wide_120fov"]
    jacobian = jax.jacobian(lambda p: model.project(p, jnp)[0])
    beside, on = jacobian(jnp.array([1e-4, 0.0, 10.0])), jacobian(jnp.array([0.0, 0.0, 10.0]))
    np.testing.assert_allclose(on, beside, rtol=1e-3, atol=0.02)
    assert np.isfinite(jacobian(jnp.array([0.0, 0.0, -10.0]))).all()
    assert np.isfinite(jacobian(jnp.array([0.0, 0.0, 0.0]))).all()


def test_only_the_upstream_projection_is_wrong_near_the_axis():
    model = LENSES["camera_front_tele_30fov"]
    point = np.array([0.02, 0.0, 100.0])
    exact, upstream = model.project(point)[0], model.project_upstream(point)[0]
    np.testing.assert_allclose(exact - model.center, (0.735, 0), atol=1e-2)
    np.testing.assert_allclose(upstream - model.center, (73.6, 0), atol=0.5)
    away = np.random.default_rng(4).uniform((1, 1, 5), (9, 9, 50), (100, 3))
    np.testing.assert_allclose(model.project_upstream(away)[0], model.project(away)[0], atol=0.05)


def test_points_behind_the_camera_lie_outside_the_image():
    model = LENSES["camera_front_wide_120fov"]
    angles = np.linspace(0, 2 * np.pi, 100)
    points = np.stack([np.cos(angles), np.sin(angles), np.full(100, -0.2)], axis=-1)
    uv, depth = model.project(points)
    assert (depth < 0).all()
    assert not ((uv >= 0) & (uv < model.size)).all(axis=-1).any()


def test_rescaling_moves_pixels_with_the_image():
    model = LENSES["camera_cross_left_120fov"]
    points = np.random.default_rng(5).uniform((-9, -4, 5), (9, 4, 50), (100, 3))
    small = model.rescale(180, 320)
    assert (small.height, small.width) == (180, 320)
    np.testing.assert_allclose(small.project(points)[0], model.project(points)[0] / 6, atol=0.02)


def test_a_size_cut_short_by_upstream_is_whole_here():
    model = make_camera((615, 400), (1231, 800), (0, 1e-3, 0, 0, 0, 0), True)
    assert model.rescale(720, 1280).width == 1280
    assert model.rescale(720, 1280, truncate=True).width == 1279


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"coefficients": (0, 0, 0, 0, 0, 0)}, "all coefficients"),
        ({"coefficients": (1, 0, 0, 0, 0, 1e-30)}, "does not rise"),
        ({"coefficients": (0, -1e-3, 0, 0, 0, 0)}, "must rise"),
        ({"coefficients": (0, -900, 0, 0, 0, 0), "backward": False}, "does not rise"),
        ({"coefficients": (0, np.nan, 0, 0, 0, 0)}, "polynomial of the camera"),
        ({"coefficients": (0, 1e-3, 0, 0, 0)}, "5 polynomial coefficients"),
        ({"coefficients": (0, 1000, 0, 0, 0, 0)}, "within 180 degrees"),
        ({"coefficients": (0, 1e-9, 0, 0, 0, 0)}, "projects nothing"),
        ({"coefficients": (0, 1e-3, 0, 0, 0, 0), "backward": False}, "must rise|flat"),
        ({"coefficients": (0, 2e-3, 0, -1.5e-9, 0, 0)}, "rise"),
        ({"center": (np.inf, 500)}, "centre"),
        ({"center": (90_000, 500)}, "within 180 degrees"),
        ({"size": (0, 1080)}, "too small"),
        ({"linear": ((0, 0), (0, 1))}, "make no image"),
        ({"linear": ((1e20, 0), (0, 1))}, "make no image"),
    ],
)
def test_numbers_that_make_no_camera_are_one_line(changes, words):
    arguments = {
        "center": (960, 540),
        "size": (1920, 1080),
        "coefficients": (0, 1e-3, 0, 0, 0, 0),
        "backward": True,
        **changes,
    }
    with pytest.raises(ValueError, match=words) as error:
        make_camera(**arguments)
    assert "\n" not in str(error.value)


def test_to_camera_undoes_the_pose():
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3] = Rotation.from_euler("xyz", (0.3, -1.2, 2)).as_matrix()
    pose[:3, 3] = 30, -20, 1
    points = np.random.default_rng(6).normal(size=(7, 3)).astype(np.float32)
    world = points @ pose[:3, :3].T + pose[:3, 3]
    for xp in (np, jnp):
        np.testing.assert_allclose(to_camera(world, pose, xp), points, atol=2e-5)


def random_track(random, extrapolation_us=0) -> Track:
    count = random.integers(2, 9)
    times = np.cumsum(random.integers(1, 300_000, count)) + 1_700_000_000_000_000
    turns = random.normal(size=(count, 4))
    return Track(
        id=str(random.integers(1000)),
        kind="Car",
        category="car",
        timestamps=times,
        centers=random.normal(size=(count, 3)).astype(np.float32) * 50,
        rotations=(turns / np.linalg.norm(turns, axis=1, keepdims=True)).astype(np.float32),
        sizes=random.uniform(1, 5, (count, 3)).astype(np.float32),
        moving=True,
        extrapolation_us=extrapolation_us,
    )


@pytest.mark.parametrize("seed", range(10))
def test_interpolation_is_exact_at_keys(seed):
    track = random_track(np.random.default_rng(seed))
    turns = Rotation.from_quat(track.rotations).as_matrix()
    poses = interpolate_poses(track.timestamps, track.centers, track.rotations, track.timestamps)
    np.testing.assert_array_equal(poses[:, :3, 3], track.centers)
    np.testing.assert_allclose(poses[:, :3, :3], turns, atol=1e-7)  # one rounding to float32
    for i, time in enumerate(track.timestamps):
        boxes = boxes_at((track,), int(time))
        np.testing.assert_array_equal(boxes.centers[0], track.centers[i])
        np.testing.assert_array_equal(boxes.sizes[0], track.sizes[i])
        np.testing.assert_allclose(boxes.rotations[0], turns[i], atol=1e-7)


def test_a_track_goes_on_for_its_extrapolation_and_no_longer():
    track = random_track(np.random.default_rng(0), 500_000)
    first, last = int(track.timestamps[0]), int(track.timestamps[-1])
    for present, time in (
        (True, first - 500_000), (True, last + 500_000),
        (False, first - 500_001), (False, last + 500_001),
    ):  # fmt: skip
        assert len(boxes_at((track,), time).ids) == present
    late = boxes_at((track,), last + 100_000)
    velocity = (track.centers[-1] - track.centers[-2]) / (
        track.timestamps[-1:] - track.timestamps[-2]
    )
    np.testing.assert_allclose(late.centers[0], track.centers[-1] + velocity * 1e5, rtol=1e-4)
    np.testing.assert_array_equal(late.sizes[0], track.sizes[-1])


def test_turning_takes_the_short_way_whatever_the_sign():
    turns = Rotation.from_euler("z", ((170,), (-170,)), degrees=True).as_quat()
    for sign in (1, -1):
        pose = interpolate_poses(np.array([0, 2]), np.zeros((2, 3)), turns * [[1], [sign]], [1, 3])
        yaw = Rotation.from_matrix(pose[:, :3, :3]).as_euler("xyz", degrees=True)[:, 2]
        np.testing.assert_allclose(np.abs(yaw), (180, 160), atol=1e-4)


def test_boxes_of_many_tracks_are_those_of_each():
    random = np.random.default_rng(7)
    tracks = tuple(random_track(random, 500_000) for _ in range(30))
    time = 1_700_000_000_400_000
    boxes = boxes_at(tracks, time)
    alone = [box for track in tracks if (box := boxes_at((track,), time)).ids]
    assert 0 < len(alone) == len(boxes.ids)
    for i, box in enumerate(alone):
        np.testing.assert_array_equal(boxes.centers[i], box.centers[0])
        np.testing.assert_allclose(boxes.rotations[i], box.rotations[0], atol=1e-6)
    assert boxes_at((), time).centers.shape == (0, 3)
