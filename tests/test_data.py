"""Datasets in each layout; wrong ones are named."""

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np
import pytest
import small_data
from small_data import a_video

from jaxvid.core.files import InputError
from jaxvid.core.video import read_video, write_video
from jaxvid.data.folders import natural_key
from jaxvid.data.sources import DataConfig, open_source

videos = functools.partial(DataConfig, name="videos", probes="")


@pytest.fixture
def config(tmp_path):
    return small_data.mazes(tmp_path)


@pytest.fixture
def npy_root(config):
    return Path(config.root)


@pytest.fixture
def carla_root(tmp_path):
    return small_data.carla(tmp_path)


@pytest.fixture
def video_root(tmp_path):
    return small_data.clips(tmp_path)


def test_npy_files_are_read_in_number_order(config):
    source = open_source(config, "train")
    assert [source.name(i) for i in range(12)] == [str(i) for i in range(12)]
    assert source.ignored == 2 and "2 other files ignored" in source.describe()
    assert (len(source), source.frames, source.size) == (12, 4, 16)
    np.testing.assert_array_equal(source[10], a_video(10)[:4])
    assert len(list(open_source(config, "test"))) == 3


def test_training_windows_cover_the_whole_video(config):
    source, rng = open_source(config, "train"), np.random.default_rng(0)
    starts = {int(source.window(1, rng)[0, 0, 0, 0]) - 20 for _ in range(60)}
    assert starts == {0, 1, 2}
    window = source.window(1, rng, frames=2)
    np.testing.assert_array_equal(np.diff(window[:, 0, 0, 0].astype(int)), [1])


@pytest.mark.parametrize("name", ["mazes_cwvae", "minerl", "carla_no_traffic", "maze_walk"])
def test_datasets_know_their_length_and_size(name, npy_root, carla_root):
    roots = {"carla_no_traffic": carla_root, "maze_walk": ""}
    config = DataConfig(name=name, root=str(roots.get(name, npy_root)), test_videos=2)
    source = open_source(config, "test")
    expected = {"minerl": (500, 64), "carla_no_traffic": (1000, 128)}
    assert (source.frames, source.size) == expected.get(name, (300, 64))


def test_carla_splits_follow_the_csv_files(carla_root):
    other = "/home/somebody/carla/no-traffic"
    (carla_root / "video_train.csv").write_text(f",path\n0,{other}/video_3.pt\n1,video_0.pt\n")
    (carla_root / "video_test.csv").write_text(f",path\n2,{other}/video_2.pt\n")
    config = DataConfig(name="carla_no_traffic", root=str(carla_root), frames=3, size=16)
    train, test = open_source(config, "train"), open_source(config, "test")
    assert [train.name(i) for i in range(len(train))] == ["video_3", "video_0"]
    assert [test.name(i) for i in range(len(test))] == ["video_2"]
    np.testing.assert_array_equal(train[0], a_video(3)[:3])
    np.testing.assert_array_equal(train.labels(0)["coords"], np.full((6, 2), 3))


def test_carla_without_csv_files_holds_out_the_last_videos(carla_root):
    config = DataConfig(
        name="carla_town02_no_traffic", root=str(carla_root), test_videos=2, size=16
    )
    config = dataclasses.replace(config, frames=3)
    train, test = open_source(config, "train"), open_source(config, "test")
    assert [train.name(i) for i in range(len(train))] == ["video_0", "video_1", "video_2"]
    assert [test.name(i) for i in range(len(test))] == ["video_3", "video_4"]


def test_a_folder_of_videos_is_searched_and_cropped(video_root):
    config = videos(root=str(video_root), size=16, resize="center_crop")
    source = open_source(config, "test")
    assert [source.name(i) for i in range(3)] == ["b9", "b10", "more/a"]
    assert (source.frames, source.fps, source.ignored) == (6, 10, 1)
    means = source[1].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, 200 + np.arange(6), atol=2)  # levels; H.264 loses some
    assert source[1].shape == (6, 16, 16, 3)


def test_a_video_of_the_right_size_is_not_touched(tmp_path):
    write_video(
        tmp_path / "a.mp4", np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8), 8
    )
    config = videos(root=str(tmp_path), size=32, frames=3)
    expected = read_video(tmp_path / "a.mp4")[:3]
    np.testing.assert_array_equal(open_source(config, "test")[0], expected)


def test_a_folder_of_videos_can_hold_some_out(video_root):
    config = videos(root=str(video_root), frames=2, test_videos=1)
    assert [len(open_source(config, split)) for split in ("train", "test")] == [2, 1]
    config = dataclasses.replace(config, test_videos=0)
    assert [len(open_source(config, split)) for split in ("train", "test")] == [3, 3]
    with pytest.raises(ValueError, match="cannot hold out test_videos=3"):
        open_source(dataclasses.replace(config, test_videos=3), "test")


def test_a_folder_of_videos_may_have_split_folders(tmp_path):
    for split, number in (("train", 1), ("test", 2)):
        (tmp_path / split).mkdir()
        write_video(tmp_path / split / "x.mp4", a_video(number), fps=5)
    config = videos(root=str(tmp_path), size=16)
    for split, number in (("train", 1), ("test", 2)):
        assert abs(open_source(config, split)[0].mean() - 20 * number - 2.5) < 2


def test_maze_walk_is_the_same_from_memory_and_rendered_anew():
    config = DataConfig(size=16, frames=10, train_videos=3)
    kept = open_source(config, "train")
    rendered = open_source(dataclasses.replace(config, cache_mb=0), "train")
    assert len(kept) == 3 and kept.length(0) == 300
    np.testing.assert_array_equal(kept[2], rendered[2])
    labels = kept.labels(2)
    assert labels["actions"].shape == (300,) and labels["poses"].shape == (300, 3)


def test_data_root_gets_copies_of_what_is_used(npy_root, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "fast"))
    config = dataclasses.replace(config, root="mazes")
    source = open_source(config, "test")
    np.testing.assert_array_equal(source[1], a_video(1)[:4])
    copied = [p.relative_to(tmp_path) for p in (tmp_path / "fast").rglob("*") if p.is_file()]
    assert [str(path) for path in copied] == ["fast/mazes/test/1.npy"]
    np.save(tmp_path / "fast/mazes/test/1.npy", a_video(5))
    np.testing.assert_array_equal(source[1], a_video(5)[:4])  # the copy is what is read


def test_data_root_can_be_the_only_place(npy_root, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path / "mazes" / "train")
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    source = open_source(dataclasses.replace(config, root="mazes"), "test")
    np.testing.assert_array_equal(source[1], a_video(1)[:4])


def test_natural_order():
    names = ["a10", "a2", "10", "9", "a", "b1/2", "b1/10"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "a2", "a10", "b1/2", "b1/10"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "mazes"}, "dataset 'mazes' is unknown; known: maze_walk"),
        ({"frames": 0}, "frames=0"),
        ({"size": -1}, "size=-1"),
        ({"resize": "stretch"}, "resize='stretch'"),
        ({"test_videos": -1}, "test_videos=-1"),
    ],
)
def test_bad_configs_are_named(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        DataConfig(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (a_video(0), {"frames": 7}, r"0\.npy: 6 frames, but 7 are wanted; set frames=6"),
        (a_video(0), {"size": 32}, r"0\.npy: frames are 16x16 .*, but 32x32 is wanted"),
        (a_video(0)[0], {}, r"0\.npy: holds uint8\(16, 16, 3\); save it as uint8"),
        (a_video(0)[..., :1], {}, r"0\.npy: holds uint8\(6, 16, 16, 1\)"),
        (a_video(0).astype(np.float32), {}, r"0\.npy: holds float32"),
        (b"", {}, r"0\.npy: not a whole .npy array"),
        (b"\x93NUMPY garbage", {}, r"0\.npy: not a whole .npy array"),
        (np.array([object()]), {}, r"0\.npy: not a whole .npy array"),
    ],
)
def test_bad_npy_files_are_named(config, npy_root, content, changes, message):
    path = npy_root / "test" / "0.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    source = open_source(dataclasses.replace(config, **changes), "test")
    for read in (lambda: source[0], lambda: source.check(0)):
        with pytest.raises(ValueError, match=message) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_cut_off_npy_file_is_named(config, npy_root):
    path = npy_root / "test" / "0.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"0\.npy: not a whole"):
        open_source(config, "test").check(0)


def test_missing_things_are_named(config, carla_root, video_root, tmp_path):
    (tmp_path / "empty" / "test").mkdir(parents=True)
    cases = [
        (dataclasses.replace(config, root=str(tmp_path / "nowhere")), "no such data folder"),
        (dataclasses.replace(config, root=str(tmp_path / "empty")), "no .npy files"),
        (videos(), "needs root"),
        (videos(root=str(tmp_path / "empty")), "no video files"),
        (DataConfig(name="carla_no_traffic", root=str(tmp_path / "empty")), "no test videos"),
        (dataclasses.replace(config, prepared=str(tmp_path)), "no prepared dataset"),
    ]
    for case, message in cases:
        with pytest.raises(ValueError, match=message):
            open_source(case, "test")
    with pytest.raises(ValueError, match="split 'valid' is unknown"):
        open_source(config, "valid")
    with pytest.raises(ValueError, match="has no test video 3: it has 3, numbered 0 to 2"):
        open_source(config, "test")[3]
    with pytest.raises(ValueError, match="no train videos"):
        open_source(DataConfig(name="carla_no_traffic", root=str(carla_root)), "train")
    (carla_root / "video_test.csv").write_text(",path\n0,video_77.pt\n")
    source = open_source(DataConfig(name="carla_no_traffic", root=str(carla_root)), "test")
    with pytest.raises(ValueError, match=r"video_77\.pt: listed in video_test"):
        source.check(0)


def test_a_folder_tells_what_its_readable_videos_hold(video_root, tmp_path, monkeypatch):
    (video_root / "a.mp4").write_bytes((video_root / "b9.mp4").read_bytes()[:-99])
    source = open_source(videos(root=str(video_root), resize="center_crop"), "test")
    assert (source.name(0), source.frames, source.fps) == ("a", 6, 10)
    with pytest.raises(ValueError, match=r"a\.mp4: the file is cut off"):
        source.check(0)
    source.check(1)
    for path in source.paths[1:]:
        path.unlink()
    with pytest.raises(ValueError, match=r"a\.mp4: the file is cut off"):
        open_source(videos(root=str(video_root)), "test")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path / "fast"))
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may read anything
    with pytest.raises(InputError, match=r"a\.mp4: cannot be read \(permission denied\)"):
        open_source(videos(root="clips"), "test")


def test_videos_of_another_size_are_refused_unless_cropped(video_root):
    source = open_source(videos(root=str(video_root), size=16), "test")
    with pytest.raises(ValueError, match=r"b9\.mp4: frames are 24x32 .*resize='center_crop'"):
        source.check(0)
