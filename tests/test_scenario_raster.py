"""The rasteriser: coverage, depth, order, and how wide lines are."""

import numpy as np
import pytest

from jaxvid.scenario import palette
from jaxvid.scenario.outlines import fade, gather, polygons, thick_lines, triangles
from jaxvid.scenario.raster import SAMPLES, SUBPIXELS, Canvas

HEIGHT, WIDTH = 90, 160


def plain(corners, depth=10.0, color=(255, 255, 255)):
    """One convex polygon (k, 2) pixels of one depth and colour, not faded."""
    values = np.array([depth / palette.DEPTH_MAX, *np.array(color) / 255])
    planes = np.zeros((1, 4, 3))
    planes[0, :, 0] = values
    limits = np.stack([values, values], axis=-1)[None]
    return polygons(np.asarray(corners, float)[None], planes, limits, np.zeros(1, int))


def in_order(*groups):
    return gather([g._replace(order=g.order + i) for i, g in enumerate(groups)])


def covered(corners, height, width, samples):
    """By brute force: the share of samples strictly inside, and of those inside or on a side."""
    corners = np.rint(np.asarray(corners) * SUBPIXELS).astype(int)
    places = np.array(SAMPLES[samples])
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1) * SUBPIXELS
    points = grid[:, :, None] + places
    sides = np.roll(corners, -1, axis=0) - corners
    offsets = points[..., None, :] - corners
    turns = sides[:, 0] * offsets[..., 1] - sides[:, 1] * offsets[..., 0]
    inside = (turns > 0).all(-1) | (turns < 0).all(-1)
    touched = (turns >= 0).all(-1) | (turns <= 0).all(-1)
    return inside.sum(-1), touched.sum(-1)


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("seed", range(12))
def test_coverage_equals_brute_force(seed, samples):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    corners = circle * rng.uniform(1, 40, 2) + rng.uniform(-5, 25, 2)
    image = Canvas(16, 24, samples).draw(plain(corners))
    low, high = (np.floor(n * 255 / samples + 0.5) for n in covered(corners, 16, 24, samples))
    assert (image[..., 0] >= low).all() and (image[..., 0] <= high).all()


@pytest.mark.parametrize("seed", range(8))
def test_neighbours_share_no_sample_and_leave_none(seed):
    """A fan of triangles with different depths: each sample has exactly one of them."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 8)[:-1] + rng.uniform(0, 0.5)
    rim = 60 * np.stack([np.cos(angles), np.sin(angles)], axis=1) + (12, 8)
    middle = np.floor(rng.uniform(4, 12, 2) * 8) / 8  # on a sample, as a hard case
    fan = [plain((middle, a, b)) for a, b in zip(rim, np.roll(rim, -1, axis=0), strict=True)]
    canvas = Canvas(16, 24)
    parts = [canvas.draw(triangle).astype(int).sum() for triangle in fan]
    assert (canvas.draw(in_order(*fan)) == 255).all()
    assert abs(sum(parts) - 255 * 3 * 16 * 24) <= 16 * 24  # rounding of partly covered pixels


SQUARE = ((2, 2), (6, 2), (6, 6), (2, 6))


def test_samples_on_left_and_top_sides_are_inside():
    shifted = np.array(SQUARE) + 0.5  # sides run through the samples of `samples=1`
    image = Canvas(8, 8, samples=1).draw(plain(shifted))[..., 0]
    assert (image[2:6, 2:6] == 255).all() and image.sum() == 16 * 255


def test_the_nearer_wins_in_any_order_and_the_first_of_equals():
    near, far = plain(SQUARE, 10, (255, 0, 0)), plain(SQUARE, 10.001, (0, 255, 0))
    equal = plain(SQUARE, 10, (0, 0, 255))
    canvas = Canvas(8, 8)
    for groups, winner in (
        ((near, far), 0),
        ((far, near), 0),
        ((near, equal), 0),
        ((equal, near), 2),
    ):
        assert canvas.draw(in_order(*groups))[4, 4].argmax() == winner


@pytest.mark.parametrize("depth", [-0.01, 200.0, 250.0])
def test_nothing_is_drawn_behind_the_camera_or_beyond_200_metres(depth):
    assert not Canvas(8, 8).draw(plain(SQUARE, depth)).any()


def test_depth_is_cut_where_it_crosses_zero_on_the_screen():
    corners, white = np.array([[(0, 0), (8, 0), (0, 16)]], float), np.full((1, 1, 3), 255.0)
    depths = np.array([[-10.0, 10.0, -10.0]])
    image = Canvas(8, 8).draw(triangles(corners, depths, white, np.zeros(1, int)))[..., 0]
    assert not image[:, :3].any() and (image[0, 5:7] > 230).all()


def test_lines_are_as_wide_as_upstream_draws_them():
    """12 pixels upright at depth 0, less with depth, and flatter where they lie."""
    for ends, depth, axis, wanted in (
        (((80, 10), (80, 80)), 0.001, 1, 12),
        (((80, 10), (80, 80)), 100, 1, 6),
        (((20, 45), (140, 45)), 0.001, 0, 12 * HEIGHT / WIDTH),
    ):
        uv, depths = np.array([ends], float), np.full((1, 2), depth)
        line = thick_lines(
            uv, depths, np.array([12.0]), np.full((1, 3), 255.0), np.zeros(1, int), HEIGHT, WIDTH
        )
        image = Canvas(HEIGHT, WIDTH).draw(line)[..., 0] / 255 / fade(depth)
        middle = image[45] if axis else image[:, 80]
        np.testing.assert_allclose(middle.sum(), wanted, atol=0.5)


def test_segments_without_length_or_width_are_not_drawn():
    uv = np.array([[(3, 3), (3, 3)], [(3, 3), (9, 3)]], float)
    depths, widths, order = np.array([(1.0, 1.0), (200.0, 250.0)]), np.full(2, 12.0), np.arange(2)
    assert len(thick_lines(uv, depths, widths, np.ones((2, 3)), order, 9, 9).order) == 0
