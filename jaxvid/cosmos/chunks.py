"""Long videos chunk by chunk: each one continues the last frames of the one before it."""

import dataclasses
from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """How chunks follow each other; all numbers count pixel frames of one view."""

    frames: int = 29  # of a chunk
    overlap: int = 0  # that a chunk shares with the one before
    chunks: int = 1

    def __post_init__(self):
        if not 0 <= self.overlap < self.frames:
            raise ValueError(
                f"chunk_overlap={self.overlap} must be at least 0 and less than the "
                f"{self.frames} frames of a chunk"
            )

    @property
    def stride(self) -> int:
        return self.frames - self.overlap

    @property
    def total(self) -> int:
        """Frames of the whole video."""
        return self.frames + self.stride * (self.chunks - 1)

    def start(self, chunk: int) -> int:
        """The frame of the video that is a chunk's first one, overlap included."""
        return chunk * self.stride

    def new(self, chunk: int) -> int:
        """The first frame of a chunk that is not in the video yet."""
        return self.overlap if chunk else 0


def chunks_within(available: int, frames: int, overlap: int) -> int:
    """How many chunks `available` frames last for; 0 if not for one."""
    return 0 if available < frames else 1 + (available - frames) // (frames - overlap)


class Window(NamedTuple):
    """A chunk to make. past: uint8 (v, k, h, w, 3), the frames it begins with, k may be 0."""

    chunk: int
    start: int
    past: np.ndarray


class Piece(NamedTuple):
    """A finished chunk. frames: (v, t, h, w, 3), its new ones; past: what the next begins with."""

    chunk: int
    frames: np.ndarray
    past: np.ndarray


def autoregress(
    make: Callable[[Window], Generator],
    layout: Layout,
    past: np.ndarray,
    first: int = 0,
) -> Generator:
    """Makes chunks in order (upstream's `generate_autoregressive`).

    The frames that a chunk began with are handed on as they came, the others as they were made.

    Args:
      make: returns all frames of a window, uint8 (v, t, h, w, 3), the first ones included. It is
        a generator: what it yields on its way is passed on.
      past: of the first window: uint8 (v, k, h, w, 3) of the input videos, or of `Piece.past`.
      first: the chunk to begin with, to continue a video.
    Yields:
      A Piece for each chunk.
    """
    for chunk in range(first, layout.chunks):
        frames = yield from make(Window(chunk, layout.start(chunk), past))
        kept = past.shape[1]
        whole = np.concatenate([past, frames[:, kept:]], axis=1)
        past = whole[:, layout.stride :]
        yield Piece(chunk, frames[:, layout.new(chunk) :], past)
