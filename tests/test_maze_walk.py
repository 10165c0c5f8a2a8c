"""maze_walk: the walks are possible, smooth, reproducible, and drawn as the geometry says."""

import numpy as np
import pytest

from jaxvid.data import maze_walk, raycaster
from jaxvid.data.maze_walk import FORWARD, LEFT, RIGHT, plan_walk, render_walk

CLEARANCE = 0.4  # blocks; half a corridor is 0.5


@pytest.fixture(scope="module")
def plans():
    return [plan_walk(seed=0, index=i, split="train", frames=300) for i in range(60)]


def test_walkers_keep_clear_of_walls(plans):
    for scene, poses, _ in plans:
        for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
            offset = CLEARANCE * np.array((np.cos(angle), np.sin(angle)))
            blocks = np.floor(poses[:, :2] + offset).astype(int)
            assert not scene.solid[tuple(blocks.T)].any()


def test_walkers_move_smoothly(plans):
    for _, poses, _ in plans:
        steps = np.diff(poses, axis=0)
        distance, turn = np.hypot(steps[:, 0], steps[:, 1]), abs(steps[:, 2])
        assert distance.max() <= 1 / maze_walk.FRAMES_PER_BLOCK + 1e-9
        assert turn.max() <= np.pi / 2 / maze_walk.FRAMES_PER_CORNER + 1e-9
        assert (distance + turn).min() > 0.01  # never at rest


def test_actions_say_how_the_pose_changes(plans):
    for _, poses, actions in plans:
        turn = np.diff(poses[:, 2])
        actions = actions[:-1]
        straight = actions == FORWARD
        assert (abs(turn[straight]) < 1e-9).all()
        lefts = np.isin(actions, (LEFT, maze_walk.SPIN_LEFT))
        assert (turn[lefts] > 0).all() and (turn[~lefts & ~straight] < 0).all()


def test_walks_have_corners_of_both_kinds_and_get_around(plans):
    actions = np.concatenate([actions for *_, actions in plans])
    shares = np.bincount(actions, minlength=5) / len(actions)
    assert shares[FORWARD] > 0.4 and shares[LEFT] > 0.1 and shares[RIGHT] > 0.1
    visited = [len(np.unique(np.floor(poses[:, :2]), axis=0)) for _, poses, _ in plans]
    assert np.median(visited) >= 12


def test_every_block_of_a_maze_can_be_reached():
    for i in range(20):
        is_open = ~maze_walk.make_maze(np.random.default_rng(i))
        reached = np.zeros_like(is_open)
        reached[tuple(np.argwhere(is_open)[0])] = True
        for _ in range(is_open.size):
            spread = reached.copy()
            spread[1:] |= reached[:-1]
            spread[:-1] |= reached[1:]
            spread[:, 1:] |= reached[:, :-1]
            spread[:, :-1] |= reached[:, 1:]
            reached = spread & is_open
        np.testing.assert_array_equal(reached, is_open)
        edges = (is_open[0], is_open[-1], is_open[:, 0], is_open[:, -1])
        assert not any(edge.any() for edge in edges)


def test_a_walk_follows_from_its_number_alone():
    first, again = (render_walk(3, 5, "train", frames=20, size=32) for _ in range(2))
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.poses, again.poses)
    assert first.frames.shape == (20, 32, 32, 3) and first.frames.dtype == np.uint8
    assert first.actions.shape == (20,) and first.poses.shape == (20, 3)


def test_splits_and_seeds_and_numbers_give_different_walks():
    labels = [(0, 0, "train"), (0, 0, "test"), (0, 1, "train"), (1, 0, "train"), (1, 0, "test")]
    many = labels + [(0, i, split) for i in range(2, 40) for split in ("train", "test")]
    walks = [render_walk(*label, frames=1, size=16).frames.tobytes() for label in many]
    assert len(set(walks)) == len(many)


def test_a_later_start_gives_the_later_frames():
    whole = render_walk(0, 0, frames=50, size=32)
    part = render_walk(0, 0, frames=13, size=32, start=37)
    # One level: cosines at the end of an array may be rounded differently from those in its middle.
    np.testing.assert_allclose(part.frames.astype(int), whole.frames[37:].astype(int), atol=1)
    np.testing.assert_array_equal(part.poses, whole.poses[37:])
    np.testing.assert_array_equal(part.actions, whole.actions[37:])


def test_neighbouring_frames_look_alike():
    frames = render_walk(0, 2, frames=100, size=32).frames.astype(float)
    change = abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert 0.5 < change.mean() < 20 and change.max() < 45  # of 255 levels
    assert abs(frames[0] - frames[60]).mean() > 1.5 * change.mean()


@pytest.mark.parametrize("split", ["train", "test"])
def test_pictures_are_colourful(split):
    frames = render_walk(0, 0, split, frames=300, size=16).frames[::10] / 255
    saturation = frames.max(-1) - frames.min(-1)
    assert frames.std() > 0.15 and saturation.mean() > 0.1


def test_rays_meet_the_walls_where_geometry_says():
    solid = np.ones((7, 5), bool)
    solid[1:6, 2] = False  # a corridor along x, walls at x = 1, x = 6, y = 2, y = 3
    angles = np.deg2rad([0, 30, 90, 180, 270, -10])
    dx, dy = np.cos(angles), np.sin(angles)
    hit = raycaster.cast(solid, np.full(6, 2.5), np.full(6, 2.4), dx, dy)
    with np.errstate(divide="ignore"):
        to_x = np.where(dx > 0, 6 - 2.5, 2.5 - 1) / abs(dx)
        to_y = np.where(dy > 0, 3 - 2.4, 2.4 - 2) / abs(dy)
    np.testing.assert_allclose(hit.depth, np.minimum(to_x, to_y), rtol=1e-9)
    np.testing.assert_array_equal(hit.vertical, to_x < to_y)
    assert (hit.block[1] == 2).all()


def test_a_wall_ahead_is_as_tall_as_perspective_wants():
    solid = np.ones((7, 5), bool)
    solid[1:6, 1:4] = False
    scene = raycaster.Scene(
        solid,
        np.zeros((7, 5), int),
        np.full((1, 64, 64, 3), (1.0, 0, 0), np.float32),
        np.array([(0, 1.0, 0)] * 2, np.float32),
        np.array([(0, 0, 1.0)] * 2, np.float32),
        sun=0.0,
    )
    size, depth = 128, 2.0
    image = raycaster.render(scene, np.array([[6 - depth, 2.5, 0.0]]), size)[0].astype(int)
    column = image[:, size // 2]
    wall = size / depth / (2 * np.tan(raycaster.FIELD_OF_VIEW / 2))  # rows, of a wall 1 high
    assert abs((column[:, 0] > 100).sum() - wall) <= 1
    assert (column[0] == (0, 0, 255)).all() and column[-1, 1] > 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "valid"}, "no split 'valid'"),
        ({"size": 63}, "size=63"),
        ({"size": 8}, "size=8"),
        ({"frames": 0}, "frames=0"),
        ({"start": -1}, "start=-1"),
        ({"index": -1}, "index=-1"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        render_walk(**{"seed": 0, "index": 0, **changes})
    assert "\n" not in str(caught.value)
