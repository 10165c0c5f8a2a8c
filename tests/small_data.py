"""Datasets of a few tiny videos, each in its layout on disk."""

from pathlib import Path

import numpy as np

from jaxvid.core import torch_file
from jaxvid.core.video import write_video
from jaxvid.data.sources import DataConfig


def a_video(number, frames=6, height=16, width=16):
    """Frame t of video n is made of values near 20 n + t, so that both can be told."""
    video = np.full((frames, height, width, 3), 20 * number, np.uint8)
    video += np.arange(frames, dtype=np.uint8)[:, None, None, None]
    return video


def mazes(folder: Path) -> DataConfig:
    """12 training and 3 test videos in the layout of mazes_cwvae, among files of other kinds."""
    for split, count in (("train", 12), ("test", 3)):
        part = folder / "mazes" / split
        part.mkdir(parents=True)
        for i in range(count):
            np.save(part / f"{i}.npy", a_video(i))
        (part / "0.npy.lock").touch()
        (part / ".unfinished-7.npy").touch()
    return DataConfig(name="mazes_cwvae", root=str(folder / "mazes"), frames=4, size=16)


def carla(folder: Path) -> Path:
    """Five videos in the layout of CARLA, without its lists."""
    folder = folder / "carla"
    folder.mkdir()
    for i in range(5):
        torch_file.save_pt(folder / f"video_{i}.pt", a_video(i))
        np.save(folder / f"coords_{i}.npy", np.full((6, 2), i, np.float32))
    return folder


def clips(folder: Path) -> Path:
    """Three video files of 24x32 pixels in two folders, and a file of another kind."""
    folder = folder / "clips"
    (folder / "more").mkdir(parents=True)
    for name, number, frames in (("b10.mp4", 10, 8), ("b9.mp4", 9, 6), ("more/a.gif", 1, 7)):
        write_video(folder / name, a_video(number, frames, 24, 32), fps=10)
    (folder / "notes.txt").write_text("not a video")
    return folder
