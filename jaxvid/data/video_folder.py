"""A folder of the user's own video files."""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from jaxvid.core.video import VIDEO_SUFFIXES, iter_video, probe
from jaxvid.data.folders import DataFolder
from jaxvid.data.source import Source, center_crop


class VideoFolder(Source):
    """All videos under a folder and its subfolders, by natural order of their paths.

    With subfolders train/ and test/ these are the splits. Otherwise the last `held_out` videos are
    the test split and the rest the train split; with held_out=0 both are the whole folder. A file
    in place of the folder is the only video.
    """

    def __init__(self, folder: str | Path, split: str, held_out: int = 0):
        path = Path(folder).expanduser()
        if path.is_file():
            self.folder, self.where = DataFolder(path.parent), str(path)
            self.paths, self.ignored = [path], 0
            return
        folder = DataFolder(folder)
        has_splits = all((folder.path / name).is_dir() for name in ("train", "test"))
        self.folder = DataFolder(folder.path / split) if has_splits else folder
        self.where = str(self.folder.path)
        self.paths, self.ignored = self.folder.files(VIDEO_SUFFIXES, recursive=True)
        if not self.paths:
            known = " ".join(VIDEO_SUFFIXES)
            raise ValueError(f"{self.where}: no video files ({known})")
        if held_out and not has_splits:
            if held_out >= len(self.paths):
                count = f"only {len(self.paths)} videos"
                raise ValueError(f"{self.where}: {count}, cannot hold out test_videos={held_out}")
            self.paths = self.paths[-held_out:] if split == "test" else self.paths[:-held_out]

    def __len__(self):
        return len(self.paths)

    def name(self, i):
        return str(self.paths[i].relative_to(self.folder.path).with_suffix(""))

    def place(self, i):
        return str(self.paths[i])

    def open(self, i):
        path = self.folder.local(self.paths[i])
        return VideoFile(path, self.size, bool(self.resize))

    def shortest(self) -> int:
        """Frames of the shortest video; looks into every file."""
        return min(self.length(i) for i in range(len(self)))

    def frame_rate(self) -> float:
        """Frames per second of the first video."""
        path = self.folder.local(self.paths[0])
        if not _probe(path).fps > 0:
            raise ValueError(f"{path}: states no frame rate; set fps")
        return _probe(path).fps


@dataclasses.dataclass(frozen=True)
class VideoFile:
    """A video file that is decoded where it is sliced; with `crop`, to squares of side `size`."""

    path: Path
    size: int
    crop: bool

    @property
    def shape(self):
        """(t, h, w, 3) as in the file."""
        info = _probe(self.path)
        return info.frames, info.height, info.width, 3

    def __getitem__(self, frames: slice) -> np.ndarray:
        start, stop, _ = frames.indices(self.shape[0])
        found = iter_video(self.path, start, stop - start)
        return np.stack([center_crop(f, self.size) if self.crop else f for f in found])


@functools.lru_cache(maxsize=100_000)
def _probe(path):
    return probe(path)
