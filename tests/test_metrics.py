"""Metric properties that the goldens do not show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from metric_weights import random_params

from jaxvid.metrics import frechet, fvd, images, lpips, pixels, rooms, summary
from jaxvid.metrics.i3d import I3D


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def i3d_params():
    clip = jax.ShapeDtypeStruct((1, 16, 32, 32, 3), jnp.float32)
    return random_params(jax.eval_shape(I3D().init, jax.random.key(0), clip)["params"])


def lpips_params(net):
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    init = lpips.Lpips(net).init
    return random_params(jax.eval_shape(init, jax.random.key(0), image)["params"])


@jax.jit
def small_logits(params, clips):
    return I3D().apply({"params": params}, clips / 127.5 - 1.0)


def test_psnr_of_equal_frames_is_infinite(rng):
    video = rng.random((2, 8, 8, 3))
    assert np.isinf(images.psnr(video, video)).all()
    np.testing.assert_allclose(images.psnr(video, video + 0.1), 20.0)


def test_ssim_of_equal_frames_is_one_in_any_range(rng):
    video = rng.random((2, 9, 12, 3)).astype(np.float32)
    for data_range in (1.0, 2.0):
        np.testing.assert_allclose(images.ssim(video, video, data_range), 1.0)


@pytest.mark.parametrize("shape", [(2, 6, 9, 3), (2, 9, 6, 3)])
def test_ssim_refuses_frames_smaller_than_its_window(shape):
    with pytest.raises(ValueError, match="7x7"):
        images.ssim(np.zeros(shape), np.zeros(shape))


def test_images_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        images.psnr(np.zeros((2, 8, 8, 3)), np.zeros((2, 8, 9, 3)))


def test_frechet_distance_of_far_singular_sets(rng):
    """Fewer samples than features: equal to the formula in the space the samples span."""
    a, b = rng.normal(size=(10, 64)), rng.normal(size=(10, 64)) * 2 + 1
    basis = np.linalg.qr(np.concatenate([a, b]).T)[0]
    found = frechet.frechet_distance(a, b)
    np.testing.assert_allclose(found, frechet.frechet_distance(a @ basis, b @ basis))
    np.testing.assert_allclose(frechet.frechet_distance(a, a), 0, atol=1e-9)


def test_frechet_distance_of_shifted_sets_is_the_shift(rng):
    a = rng.normal(size=(30, 5))
    np.testing.assert_allclose(frechet.frechet_distance(a, a + 2), 5 * 4)


def test_frechet_distance_of_constant_features_is_finite():
    a = np.ones((4, 6))
    assert frechet.frechet_distance(a, a) == 0


@pytest.mark.parametrize(
    "a, b, message",
    [
        (np.zeros((1, 4)), np.zeros((5, 4)), "at least 2"),
        (np.zeros((5, 4)), np.zeros((5, 3)), "expected features"),
        (np.full((5, 4), np.nan), np.zeros((5, 4)), "NaN"),
    ],
)
def test_frechet_distance_refuses(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet.frechet_distance(a, b)


def test_kernel_distance_refuses_subsets_larger_than_the_set():
    with pytest.raises(ValueError, match="subset_size=1000 exceeds the 5"):
        frechet.kernel_distance(np.zeros((5, 4)), np.zeros((7, 4)))


def test_legacy_resize_has_no_half_pixel_centres():
    """Upscaling by 2 keeps the pixels at even positions and repeats the last one at the border."""
    row = jnp.array([0.0, 10.0, 30.0])[None, None, :, None]
    resized = fvd.resize_legacy(jnp.repeat(row, 3, axis=1), 6)[0, :, :, 0]
    np.testing.assert_allclose(resized[0], [0, 5, 10, 20, 30, 30])
    np.testing.assert_allclose(resized, np.broadcast_to(resized[0], (6, 6)))


@pytest.mark.parametrize("frames", [203, pytest.param(262, marks=pytest.mark.slow)])
def test_windows_give_the_features_of_the_whole_clip(i3d_params, rng, frames):
    clips = rng.integers(0, 256, (1, frames, 16, 16, 3), np.uint8)
    whole = fvd.features(i3d_params, clips, 512, small_logits)
    cut = fvd.features(i3d_params, clips, 150, small_logits)
    # float32; the order of sums differs
    np.testing.assert_allclose(cut, whole, atol=1e-5 * np.abs(whole).max())


@pytest.mark.parametrize("window", [128, 131, 500, 512])
@pytest.mark.parametrize("frames", [129, 300, 500, 1000, 1003])
def test_windows_cover_every_logit_once(frames, window):
    if frames <= window:
        return
    length = window - (window - frames) % fvd.STRIDE
    done = 0
    while (piece := fvd.next_piece(frames, length, done)) is not None:
        start, first, last = piece
        assert start % fvd.STRIDE == 0 and 0 <= start <= frames - length
        assert start // fvd.STRIDE + first == done and last > first
        done += last - first
    assert done == -(-frames // fvd.STRIDE) - 1


def test_padding_a_batch_does_not_change_its_features(i3d_params, rng, monkeypatch):
    monkeypatch.setattr(fvd, "features", lambda p, c, w: np.asarray(small_logits(p, c)).mean(1))
    clips = [rng.integers(0, 256, (16, 16, 16, 3), np.uint8) for _ in range(2)]
    alone = fvd.batch_features(i3d_params, clips, 2)
    padded = fvd.batch_features(i3d_params, clips, 3)
    # float32; the order of sums differs
    np.testing.assert_allclose(padded, alone, atol=1e-5 * np.abs(alone).max())


def test_fvd_refuses_clips_without_a_logit():
    with pytest.raises(ValueError, match="9 frames or more, got 8"):
        fvd.features({}, np.zeros((1, 8, 64, 64, 3), np.uint8))


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_is_the_squared_distance_of_embeddings(net, rng):
    params = lpips_params(net)
    a, b = rng.uniform(-1, 1, (2, 3, 33, 32, 3)).astype(np.float32)
    distance = lpips.frame_distances(params, a, b, net)
    embed = lpips.embedder(params, net)
    apart = embed(a) - embed(b)
    np.testing.assert_allclose(np.sum(apart * apart, axis=1), distance, rtol=1e-4)  # float32
    np.testing.assert_allclose(lpips.frame_distances(params, a, a, net), 0, atol=1e-12)


def test_lpips_batches_do_not_show(rng, monkeypatch):
    params = lpips_params("alex")
    a, b = rng.uniform(-1, 1, (2, 7, 32, 32, 3)).astype(np.float32)
    together = lpips.frame_distances(params, a, b)
    monkeypatch.setattr(lpips, "FRAMES_PER_CALL", 3)
    np.testing.assert_allclose(lpips.frame_distances(params, a, b), together, rtol=1e-5)  # float32


def test_lpips_refuses_images_that_pool_to_nothing():
    with pytest.raises(ValueError, match="31x31 pixels or more, got 16x16"):
        lpips.frame_distances({}, np.zeros((1, 16, 16, 3)), np.zeros((1, 16, 16, 3)))


def test_smallest_lpips_frames_leave_a_pixel():
    for net, side in lpips.SMALLEST.items():
        shapes = [jax.ShapeDtypeStruct((1, s, s, 3), jnp.float32) for s in (side, side - 1)]
        large, small = (jax.eval_shape(last_stage(net), shape).shape for shape in shapes)
        assert large[1] == 1 and small[1] == 0


def last_stage(net):
    def run(images):
        return lpips.Lpips(net).init_with_output(jax.random.key(0), images)[0][-1].features

    return run


def test_truncation_shifts_63_pixel_values():
    """Counts of section 4.4 of the FDM notes: 63 of 256 values come back one lower."""
    shifted = {
        rule: [int(np.sum(pixels.STORED - table(rule))) for table in TABLES]
        for rule in pixels.RULES
    }
    assert shifted == {"paper": [63, 0], "refactored": [63, 63], "exact": [0, 0]}


TABLES = (pixels.truth_table, pixels.sample_table)


def test_summary_takes_the_good_direction():
    values = np.array([[[1.0, 4.0], [3.0, 0.0]]])  # one video, two samples, two frames
    assert summary.frame_summary(values, "psnr") == {
        "best": 3.5, "best_avg": 2.5, "mean": 2.0, "random": 2.5
    }  # fmt: skip
    assert summary.frame_summary(values, "lpips") == {
        "best": 0.5, "best_avg": 1.5, "mean": 2.0, "random": 2.5
    }  # fmt: skip


def test_error_of_the_mean_divides_by_n_minus_1():
    assert summary.mean_and_error([1.0, 3.0]) == {"mean": 2.0, "error": 1.0}
    assert summary.mean_and_error([5.0]) == {"mean": 5.0, "error": None}


def walk(*inside):
    """Frames of 64x64, all green (in a hallway) where `inside`, each state 12 frames long."""
    frames = np.full((12 * len(inside), 64, 64, 3), 120, np.uint8)
    frames[np.repeat(inside, 12)] = (10, 200, 20)
    return frames


@pytest.mark.parametrize(
    "inside, expected",
    [
        ((False, False), (True, False, 0)),
        ((False, True), (False, True, 0)),
        ((False, True, False), (False, False, 1)),
        ((True, False, True, False), (False, False, 2)),
        ((False, True, False, True), (False, False, 1)),
    ],
)
def test_walks_are_in_one_class(inside, expected):
    assert rooms.classify(walk(*map(bool, inside))) == expected


def test_room_accuracy_counts_equal_classes():
    room, hallway, back = (rooms.classify(walk(*i)) for i in ([False], [True], [True, False]))
    assert rooms.room_accuracy([room, hallway, back], [room, back, back]) == 2 / 3


def test_hue_of_pure_colours():
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], np.uint8)
    hue, saturation, value = rooms.hsv(colours)
    assert hue.tolist() == [[0, 60, 120, 0]]
    assert saturation.tolist() == [[255, 255, 255, 0]]
    assert value.tolist() == [[255, 255, 255, 9]]
