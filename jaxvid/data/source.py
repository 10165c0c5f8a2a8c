"""What a dataset looks like from outside: numbered videos of one size that can be read in part."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

RESIZES = ("", "center_crop")


class Source:
    """The videos of one split, in a fixed order.

    A subclass defines `__len__`, `name` and `open`, and sets `where` and `ignored`; `open_source`
    sets the other attributes.

    Attributes:
      split: "train" or "test".
      frames: T, the frames taken of each video.
      size: rows and columns of the frames handed out.
      fps: frames per second, for the videos written from it.
      resize: "" refuses frames of another size, "center_crop" cuts out the central square and
        scales it.
      where: where the videos come from, for messages.
      ignored: files found beside the videos and left alone.
    """

    split: str
    frames: int
    size: int
    fps: float
    resize: str = ""
    where: str = ""
    ignored: int = 0

    def __len__(self) -> int:
        raise NotImplementedError

    def name(self, i: int) -> str:
        """What video `i` is called; for files, the name without the suffix."""
        raise NotImplementedError

    def open(self, i: int):
        """Video `i` unread: an object with `.shape` (t, h, w, 3), sliced to uint8 frames."""
        raise NotImplementedError

    def place(self, i: int) -> str:
        """Where video `i` is, for messages."""
        return f"{self.where}/{self.name(i)}"

    def version(self) -> str:
        """Hash that changes with the videos, where they are no files a request could name."""
        return ""

    def labels(self, i: int) -> dict[str, np.ndarray]:
        """What else is known about the frames of video `i`, one row per frame."""
        self._check_index(i)
        return {}

    def length(self, i: int) -> int:
        """Frames that video `i` really has."""
        self._check_index(i)
        return self.open(i).shape[0]

    def look(self, videos: Iterable[int]) -> None:
        """Looks at videos that are going to be checked, many at once if that saves time."""

    def check(self, i: int, frames: int | None = None):
        """Opens video `i` without reading it; returns what `open` does.

        Raises:
          ValueError: no such video, fewer than `frames` (default: T) frames, or another size than
            asked for without `resize`.
        """
        self._check_index(i)
        video, frames = self.open(i), frames or self.frames
        length, height, width = video.shape[:3]
        where = self.place(i)
        if length < frames:
            way_out = f"set frames={length} or less, or take it out of the dataset"
            raise ValueError(f"{where}: {length} frames, but {frames} are wanted; {way_out}")
        if not self.resize and (height, width) != (self.size, self.size):
            size, wanted = f"{height}x{width} (rows x columns)", f"{self.size}x{self.size}"
            way_out = "set size, or resize='center_crop'"
            raise ValueError(f"{where}: frames are {size}, but {wanted} is wanted; {way_out}")
        return video

    def check_all(self) -> None:
        """Checks every video where that reads none of them, before a long run trips over one.

        Raises:
          ValueError: in one line that names the wrong ones.
        """

    def __getitem__(self, i: int) -> np.ndarray:
        """The first T frames of video `i`, uint8 (t, h, w, 3)."""
        return self._read(self.check(i), slice(0, self.frames))

    def window(self, i: int, rng: np.random.Generator, frames: int | None = None) -> np.ndarray:
        """T (or `frames`) consecutive frames of video `i` from a random start, uint8."""
        frames = frames or self.frames
        video = self.check(i, frames)
        start = int(rng.integers(video.shape[0] - frames + 1))
        return self._read(video, slice(start, start + frames))

    def whole(self, i: int) -> np.ndarray:
        """All frames of video `i`, uint8 (t, h, w, 3)."""
        return self._read(self.check(i, frames=1), slice(0, None))

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def describe(self) -> str:
        """One line for the log."""
        ignored = f" ({self.ignored} other files ignored)" if self.ignored else ""
        shape = f"{self.frames} frames of {self.size}x{self.size}"
        return f"{self.split}: {len(self)} videos, {shape}, from {self.where}{ignored}"

    def _read(self, video, frames: slice) -> np.ndarray:
        found = np.ascontiguousarray(video[frames])
        if found.shape[1:3] == (self.size, self.size):
            return found
        return np.stack([center_crop(frame, self.size) for frame in found])

    def _check_index(self, i):
        if not 0 <= i < len(self):
            has = f"it has {len(self)}, numbered 0 to {len(self) - 1}"
            raise ValueError(f"{self.where} has no {self.split} video {i}: {has}")


def center_crop(frame: np.ndarray, size: int) -> np.ndarray:
    """The central square of a uint8 frame (h, w, 3), scaled to `size` rows with antialiasing."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = frame[top : top + side, left : left + side]
    if side == size:
        return square
    return np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC))


def check_array(video, path: Path):
    """Passes on a uint8 array (t, h, w, 3).

    Raises:
      ValueError: another shape or type.
    """
    shape, dtype = getattr(video, "shape", None), getattr(video, "dtype", None)
    if shape is None or len(shape) != 4 or shape[-1] != 3 or dtype != np.uint8:
        found = f"{dtype}{tuple(shape)}" if shape is not None else type(video).__name__
        raise ValueError(f"{path}: holds {found}; save it as uint8 (t, h, w, 3)")
    return video
