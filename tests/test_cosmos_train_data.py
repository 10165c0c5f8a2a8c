"""Data of Cosmos post-training, its schedules and its running average."""

import json
from pathlib import Path

import numpy as np
from small_cosmos_train import one_line

from jaxvid.core import video
from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.cosmos import train, train_inputs
from jaxvid.cosmos.train import TrainConfig
from jaxvid.cosmos.train_data import DataConfig, Folder, Shapes, texts
from jaxvid.wan.resize import resize_uint8


def write_dataset(root, config, samples=("a", "b")):
    """Upstream's folders with noise in small videos."""
    random = np.random.default_rng(0)
    source = Folder.__new__(Folder)
    source.config, source.root, source.names = config, Path(root), list(samples)
    for i, name in enumerate(samples):
        for path in source.files(i):
            frames = random.integers(0, 255, (config.frames + 1, 16, 32, 3), np.uint8)
            video.write_video(path, frames, fps=10)
        caption = Path(root) / "captions" / "ftheta_camera_front_wide_120fov" / f"{name}.json"
        caption.parent.mkdir(parents=True, exist_ok=True)
        caption.write_text(json.dumps({"caption": f"Drive {name}."}))


def test_upstreams_folders(tmp_path):
    config = DataConfig(
        root=str(tmp_path), views=("rear", "front_wide"), frames=5, height=16, width=16
    )
    write_dataset(tmp_path, config)
    source = Folder(config)
    assert config.ids == (0, 3) and len(source) == 2 and source.captions[1] == "Drive b."
    assert source.check([0, 1]) == []
    clip = source.clip(1)
    assert clip.video.shape == clip.control.shape == (2, 5, 16, 16, 3)
    rear = tmp_path / "control_input_hdmap_bbox" / "ftheta_camera_rear_tele_30fov" / "b.mp4"
    decoded = video.read_video(rear, frames=5, scaler=video.FFMPEG_SCALER)
    resized = resize_uint8(decoded, config.height, config.width)
    np.testing.assert_array_equal(clip.control[1], resized)  # colours as when sampling
    shrunk = decoded.astype(float).reshape(5, 16, 16, 2, 3).mean(3)
    assert np.abs(clip.control[1] - shrunk).mean() < 12  # a box filter, not the triangle
    assert texts(config, source.captions[1]) == [
        "The video is captured from a camera mounted on a car. The camera is facing forward. "
        "Drive b.",
        "The video is captured from a camera mounted on a car. The camera is facing backwards. ",
    ]
    assert source.identity(0) != source.identity(1)
    video.write_video(rear, np.zeros((4, 16, 32, 3), np.uint8), fps=30)
    one_line(f"{rear} has 4 frames; data.frames=5 are taken", source.check, [1])
    video.write_video(rear, np.zeros((5, 16, 32, 3), np.uint8), fps=30)
    one_line(f"{rear} has 30.0 frames per second", source.check, [0, 1])
    for path in source.files(1):
        video.write_video(path, np.zeros((5, 16, 32, 3), np.uint8), fps=30)
    (note,) = source.check([0, 1])
    assert "30.0" in note
    rear.unlink()
    one_line(f"1 videos of 2 samples are missing: {rear}", Folder, config)
    caption = tmp_path / "captions" / "ftheta_camera_front_wide_120fov" / "a.json"
    caption.write_text("[]")
    one_line(f"{caption} is not", Folder, config)
    one_line("there is no folder", Folder, DataConfig(root=str(tmp_path / "videos")))


def test_drawn_scenes_differ_and_their_control_shows_them():
    config = DataConfig(views=("front_wide", "rear"), frames=3, height=4, width=16, samples=3)
    clips = [Shapes(config).clip(i) for i in range(3)]
    for clip in clips:
        bright = clip.video[..., 0] > 100
        np.testing.assert_array_equal(bright, clip.control[..., 0] > 100)
    assert (clips[0].video != clips[1].video).any()
    assert (clips[0].video[0] != clips[0].video[1]).any()


def test_a_view_on_each_of_more_devices(monkeypatch):
    """Two rows on eight devices, filled up by black ones."""
    monkeypatch.setattr(train_inputs, "_encode", lambda config, params, frames: frames[:, ::2] / 2)
    video = np.full((1, 3, 2, 2, 3), 40, np.uint8)
    mesh = make_mesh(MeshConfig(data=8))
    found = train_inputs.encode(None, None, train_inputs.Clip(video, video + 1), mesh)
    assert found.shape == (2, 1, 2, 2, 2, 3)
    assert (found[0] == 20).all() and (found[1] == 20.5).all()


def test_the_schedules_are_upstreams():
    config = TrainConfig()
    rates = {0: 1e-6, 500: 1e-6 + (0.5 - 1e-6) / 2, 1000: 0.5, 50_500: 0.35, 100_000: 0.2}
    for step, factor in rates.items():
        np.testing.assert_allclose(train.rate(config, step), 8.63e-5 * factor, rtol=1e-5)
    assert train.rate(config, 200_000) == train.rate(config, 100_000)
    np.testing.assert_allclose(train.ema_exponent(0.1), 6.9372, atol=1e-4)
    assert train.ema_keep(config, 0) == 0
    np.testing.assert_allclose(train.ema_keep(config, 99), 0.99**7.9372, rtol=1e-6)


def test_the_average_follows_the_power_profile():
    """After n updates the parameters of update i weigh like i^gamma."""
    config, average, n = TrainConfig(), 0.0, 400
    for step in range(n):
        keep = train.ema_keep(config, step)
        average = keep * average + (1 - keep) * (step + 1) / n
    gamma = train.ema_exponent(0.1)
    np.testing.assert_allclose(average, (gamma + 1) / (gamma + 2), atol=3e-3)  # of a sum
