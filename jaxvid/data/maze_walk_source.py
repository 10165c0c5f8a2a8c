"""maze_walk as a dataset: walks are rendered when they are first used."""

import dataclasses

import numpy as np

from jaxvid.data.maze_walk import plan_walk, render_walk
from jaxvid.data.source import Source

FRAMES = 300  # of each walk; longer ones are rendered if more are asked for


class MazeWalkSource(Source):
    """`count` walks of one split.

    Whole walks are kept in memory as long as they fit into `cache_mb`; of the others just the
    wanted frames are rendered, each time they are asked for (1.6 ms a frame of 64x64).
    """

    def __init__(
        self, split: str, seed: int, count: int, frames: int, size: int, cache_mb: int, looks: int
    ):
        self.split, self.seed, self.count, self.size = split, seed, count, size
        self.looks = looks
        self.total = max(FRAMES, frames)
        self.where = f"maze_walk-{seed}/{split}"
        self.room = cache_mb * 2**20 // (self.total * size * size * 3)
        self.kept = {}

    def __len__(self):
        return self.count

    def name(self, i):
        return f"{i:05d}"

    def open(self, i):
        return LazyWalk(self, i)

    def labels(self, i):
        """actions (t,) and poses (t, 3); see `MazeWalk`."""
        self._check_index(i)
        _, poses, actions = plan_walk(self.seed, i, self.split, self.total, self.looks)
        return {"actions": actions, "poses": poses.astype(np.float32)}

    def render(self, i: int, start: int, stop: int) -> np.ndarray:
        """Frames start to stop - 1 of walk i, uint8 (t, h, w, 3)."""
        if i not in self.kept and len(self.kept) >= self.room:
            return self._walk(i, stop - start, start)
        if i not in self.kept:  # two threads may both render it; they get the same
            self.kept[i] = self._walk(i, self.total, 0)
        return self.kept[i][start:stop]

    def _walk(self, i: int, frames: int, start: int) -> np.ndarray:
        walk = render_walk(self.seed, i, self.split, frames, self.size, start, self.looks)
        return walk.frames


@dataclasses.dataclass(frozen=True, eq=False)
class LazyWalk:
    """A walk that is rendered where it is sliced."""

    source: MazeWalkSource
    index: int

    @property
    def shape(self):
        return self.source.total, self.source.size, self.source.size, 3

    def __getitem__(self, frames: slice) -> np.ndarray:
        start, stop, _ = frames.indices(self.source.total)
        return self.source.render(self.index, start, stop)
