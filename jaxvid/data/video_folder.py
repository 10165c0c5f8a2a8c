"""A folder of the user's own video files."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxvid.core.files import InputError
from jaxvid.core.probes import Probes
from jaxvid.core.video import VIDEO_SUFFIXES, VideoInfo, iter_video
from jaxvid.data.folders import DataFolder
from jaxvid.data.source import Source, center_crop

NAMED = 20  # wrong videos, in one message


class VideoFolder(Source):
    """All videos under a folder and its subfolders, by natural order of their paths.

    With subfolders train/ and test/ these are the splits. Otherwise the last `held_out` videos are
    the test split and the rest the train split; with held_out=0 both are the whole folder. A file
    in place of the folder is the only video. What they hold is remembered in the folder `probes`,
    see core.probes.
    """

    def __init__(self, folder: str | Path, split: str, held_out: int = 0, probes: str = ""):
        self._probes = Probes(probes)
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
        return VideoFile(path, self._probes(str(path)), self.size, bool(self.resize))

    def look(self, videos: Iterable[int]) -> None:
        self._probes.look(str(path) for path in self._local(videos))

    def check_all(self) -> None:
        self.look(range(len(self)))
        wrong = []
        for i in range(len(self)):
            try:
                self.check(i)
            except ValueError as error:
                wrong.append(str(error))
        if wrong:
            more = f"; and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
            count = f"{len(wrong)} of {len(self)} {self.split} videos cannot be used"
            raise ValueError(f"{self.where}: {count}: {'; '.join(wrong[:NAMED])}{more}")

    def shortest(self) -> int:
        """Frames of the shortest video of those that can be read; looks into every file."""
        self.look(range(len(self)))
        return min(info.frames for _, info in self._readable())

    def frame_rate(self) -> float:
        """Frames per second of the first video that can be read."""
        path, info = next(self._readable())
        if not info.fps > 0:
            raise ValueError(f"{path}: states no frame rate; set fps")
        return info.fps

    def _local(self, videos: Iterable[int]) -> Iterator[Path]:
        """Where to read the videos from, those that can be copied there."""
        for i in videos:
            with contextlib.suppress(InputError):
                yield self.folder.local(self.paths[i])

    def _readable(self) -> Iterator[tuple[Path, VideoInfo]]:
        """The videos that can be read; raises the InputError of the first if none can."""
        errors = []
        for path in self.paths:
            try:
                yield path, self._probes(str(self.folder.local(path)))
            except InputError as error:
                errors.append(error)
        if len(errors) == len(self.paths):
            raise errors[0]


@dataclasses.dataclass(frozen=True)
class VideoFile:
    """A video file that is decoded where it is sliced; with `crop`, to squares of side `size`."""

    path: Path
    info: VideoInfo
    size: int
    crop: bool

    @property
    def shape(self):
        """(t, h, w, 3) as in the file."""
        return self.info.frames, self.info.height, self.info.width, 3

    def __getitem__(self, frames: slice) -> np.ndarray:
        start, stop, _ = frames.indices(self.info.frames)
        found = iter_video(self.path, start, stop - start)
        return np.stack([center_crop(f, self.size) if self.crop else f for f in found])
