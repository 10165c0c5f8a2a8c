"""Datasets prepared as TFDS files, and what opens them without TensorFlow."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import small_data
from small_data import a_video

from jaxvid.core.video import read_video, write_video
from jaxvid.data.sources import DataConfig, open_source


@pytest.fixture
def carla_root(tmp_path):
    return small_data.carla(tmp_path)


@pytest.fixture
def video_root(tmp_path):
    return small_data.clips(tmp_path)


def test_prepared_walks_equal_the_rendered_ones(tmp_path):
    from jaxvid.data.prepare import prepare

    flags = ["--name=maze_walk", "--size=16", "--train_videos=3", "--test_videos=2"]
    assert prepare([*flags, f"--data_dir={tmp_path}"]) == 0
    assert prepare([*flags, f"--data_dir={tmp_path}"]) == 0  # nothing left to do
    config = DataConfig(size=16, train_videos=3, test_videos=2, frames=5)
    for split in ("train", "test"):
        rendered = open_source(config, split)
        prepared = open_source(dataclasses.replace(config, prepared=str(tmp_path)), split)
        assert len(prepared) == len(rendered) and prepared.length(0) == 300
        for i in range(len(rendered)):
            np.testing.assert_array_equal(prepared[i], rendered[i])
        prepared.records = [None] * len(rendered)  # names and labels do without videos
        for i in range(len(rendered)):
            assert prepared.name(i) == rendered.name(i)
            for name, label in rendered.labels(i).items():
                np.testing.assert_array_equal(prepared.labels(i)[name], label)
    with pytest.raises(ValueError, match="made with another config"):
        prepare([*flags, "--seed=1", f"--data_dir={tmp_path}"])


@pytest.mark.parametrize("inside", [".", "minerl_navigate"])
def test_archives_of_mp4s_are_prepared_in_order(tmp_path, inside):
    from jaxvid.data.builders import prepare

    for split in ("train", "test"):
        for i in (0, 2, 10):
            path = tmp_path / "raw" / inside / split / f"{i}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, a_video(i), fps=20)
    name = "minerl" if inside != "." else "mazes_cwvae"
    config = DataConfig(name=name, root=str(tmp_path / "raw"), size=16)
    prepare(config, tmp_path / "out")
    opened = DataConfig(name=name, prepared=str(tmp_path / "out"), size=16, frames=4)
    source = open_source(opened, "train")
    assert [source.name(i) for i in range(3)] == ["0", "2", "10"]
    original = read_video(tmp_path / "raw" / inside / "train" / "10.mp4")
    np.testing.assert_array_equal(source[2], original[:4])


def test_carla_and_own_videos_are_prepared(carla_root, video_root, tmp_path):
    from jaxvid.data.builders import prepare

    held_out = {"test_videos": 1, "size": 16, "probes": ""}
    carla = DataConfig(name="carla_no_traffic", root=str(carla_root.parent), **held_out)
    videos = DataConfig(name="videos", root=str(video_root), resize="center_crop", **held_out)
    for config in (dataclasses.replace(carla, root=str(carla_root)), videos):
        prepare(config, tmp_path / "out")
        direct = open_source(dataclasses.replace(config, frames=5), "train")
        changes = {"frames": 5, "fps": 10.0, "prepared": str(tmp_path / "out")}
        prepared = open_source(dataclasses.replace(config, **changes), "train")
        assert len(direct) == len(prepared)
        np.testing.assert_array_equal(direct[1], prepared[1])


def test_archives_are_unpacked_and_bad_ones_named(tmp_path):
    import shutil

    from jaxvid.data.archives import unpack

    (tmp_path / "in" / "train").mkdir(parents=True)
    (tmp_path / "in" / "train" / "0.txt").write_text("hello")
    for kind in ("zip", "gztar"):
        archive = shutil.make_archive(tmp_path / kind, kind, tmp_path / "in")
        folder = unpack(archive, tmp_path / f"out-{kind}")
        assert (folder / "train" / "0.txt").read_text() == "hello"
    (tmp_path / "bad.zip").write_bytes(b"PK nonsense")
    with pytest.raises(ValueError, match=r"bad\.zip: cannot be unpacked"):
        unpack(tmp_path / "bad.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".unfinished-*"))


def test_data_needs_neither_tensorflow_nor_tfds_to_import():
    code = (
        "import sys, jaxvid.data.sources, jaxvid.data.batches\n"
        "print([m for m in ('tensorflow', 'tensorflow_datasets', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
