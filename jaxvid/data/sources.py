"""From a dataset's name to its videos."""

import dataclasses
from pathlib import Path

from jaxvid.data.array_files import CarlaFolder, NpyFolder
from jaxvid.data.maze_walk_source import MazeWalkSource
from jaxvid.data.prepared import PreparedSource
from jaxvid.data.source import RESIZES, Source
from jaxvid.data.video_folder import VideoFolder

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a dataset is unless the config says otherwise; None: it depends on the files."""

    layout: str  # which of the functions below opens it
    root: str
    frames: int | None
    size: int
    fps: float | None
    builder: str  # its name among the TFDS builders of `jaxvid.data.builders`


DATASETS = {
    "maze_walk": Dataset("maze_walk", "", 300, 64, 20, "maze_walk"),
    "mazes_cwvae": Dataset("npy", "datasets/gqn_mazes-torch", 300, 64, 20, "gqn_mazes"),
    "minerl": Dataset("npy", "datasets/minerl_navigate-torch", 500, 64, 20, "minerl_navigate"),
    "videos": Dataset("videos", "", None, 64, None, "own_videos"),
    **{
        name: Dataset("carla", f"datasets/carla/{folder}", 1000, 128, 10, name)
        for name, folder in (
            ("carla_no_traffic", "no-traffic"),
            ("carla_with_traffic", "with-traffic"),
            ("carla_town02_no_traffic", "town02-no-traffic"),
        )
    },
}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which videos, and how much of them. None stands for the dataset's own value."""

    name: str = "maze_walk"  # a key of DATASETS
    root: str = ""  # the dataset's folder; "" = the usual one under the working directory
    prepared: str = ""  # data_dir of the dataset as prepared by TFDS; used instead of root
    frames: int | None = None  # T; of a folder of videos: the shortest that can be read
    size: int | None = None  # rows and columns
    resize: str = ""  # "" refuses frames of another size; "center_crop" crops and scales them
    fps: float | None = None  # frame rate given to videos written from it; drops no frames
    seed: int = 0  # of the mazes of maze_walk
    looks: int = 0  # maze_walk: sets of colours and patterns; 0 = every maze has its own
    train_videos: int = 1000  # maze_walk: walks in the train split
    test_videos: int | None = None  # maze_walk 100; videos 0 (both splits are all); CARLA 100
    cache_mb: int = 2048  # maze_walk: memory for rendered walks
    probes: str = "~/.cache/jaxvid/probes"  # videos: folder that keeps what files hold; "": none

    def __post_init__(self):
        if self.name not in DATASETS:
            raise ValueError(f"dataset {self.name!r} is unknown; known: {', '.join(DATASETS)}")
        if self.resize not in RESIZES:
            raise ValueError(f"resize={self.resize!r} is unknown; use '' or 'center_crop'")
        for field in ("frames", "size", "train_videos"):
            value = getattr(self, field)
            if value is not None and value <= 0:
                raise ValueError(f"{field}={value} of dataset {self.name} must be positive")
        if self.fps is not None and not 0.001 <= self.fps <= 1000:
            raise ValueError(f"fps={self.fps} of dataset {self.name} is outside [0.001, 1000]")
        for field in ("seed", "looks"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field}={getattr(self, field)} is negative; use 0 or more")
        if (self.test_videos or 0) < 0 or self.cache_mb < 0:
            raise ValueError(
                f"test_videos={self.test_videos}, cache_mb={self.cache_mb}: neither can be negative"
            )


def open_source(config: DataConfig, split: str) -> Source:
    """Opens a split of a dataset: finds the files, reads none of them.

    Raises:
      ValueError: no such split or folder, or nothing in it.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown; use train or test")
    dataset = DATASETS[config.name]
    size = config.size or dataset.size
    if config.prepared:
        source = PreparedSource(config.prepared, dataset.builder, split)
    else:
        source = LAYOUTS[dataset.layout](config, dataset, split)
    source.split, source.size, source.resize = split, size, config.resize
    source.frames = config.frames or dataset.frames or source.shortest()
    source.fps = config.fps or dataset.fps or source.frame_rate()
    return source


def _open_maze_walk(config, dataset, split):
    tests = 100 if config.test_videos is None else config.test_videos
    count = config.train_videos if split == "train" else tests
    frames, size = config.frames or dataset.frames, config.size or dataset.size
    return MazeWalkSource(split, config.seed, count, frames, size, config.cache_mb, config.looks)


def _open_npy(config, dataset, split):
    return NpyFolder(Path(config.root or dataset.root) / split)


def _open_carla(config, dataset, split):
    held_out = 100 if config.test_videos is None else config.test_videos
    return CarlaFolder(config.root or dataset.root, split, held_out)


def _open_videos(config, dataset, split):
    if not config.root:
        raise ValueError("dataset videos needs root, the folder that holds your video files")
    return VideoFolder(config.root, split, config.test_videos or 0, config.probes)


LAYOUTS = {
    "maze_walk": _open_maze_walk,
    "npy": _open_npy,
    "carla": _open_carla,
    "videos": _open_videos,
}
