"""Schemes that also observe the end of the video and generate what leads there.

Their tables are upstream's, which lets the last windows run over goal frames; a sampler does
not write to frames in `observed_frames`. Upstream's sampling script leaves the goal frames at
zero (grey), ours copies the true ones.
"""

from jaxvid.fdm.hierarchy import Hierarchy
from jaxvid.fdm.scheme import register
from jaxvid.fdm.windows import LongRange, Windows

GOAL = 5  # frames at the end


class _LastFrames(Windows):
    def goal_frames(self):
        return [self._video_length - i for i in range(1, GOAL + 1)]


@register("goal-directed-autoreg")
class GoalAutoregressive(_LastFrames):
    """Observes the last existing frames, which are the goal first of all."""

    def next_indices(self):
        observed = self.last_frames(self._done_frames, self._max_frames - self._step_size)
        first = min(i for i in range(self._video_length) if i not in self._done_frames)
        return observed, list(range(first, min(first + self._step_size, self._video_length - 1)))


@register("goal-directed-mixed")
class GoalMixed(LongRange):
    """long-range with the last frame given."""

    def goal_frames(self):
        return [self._video_length - 1]

    def next_indices(self):
        first = sorted(self._done_frames)[-2] + 1
        stop = min(first + self._step_size, self._video_length)
        return self.mixed(), list(range(first, stop))


@register("goal-directed-hierarchy-2")
class GoalHierarchy(Hierarchy, _LastFrames):
    """hierarchy-2 on the frames before the goal; every call also observes the goal."""

    levels = 2

    def next_indices(self):
        goal = self.goal_frames()
        if not set(goal) <= set(self._obs_frames):
            raise ValueError("it needs observed frames at the start, n_obs >= 1")
        self._obs_frames = [i for i in self._obs_frames if i not in goal]
        self._done_frames -= set(goal)
        self._resize(-GOAL)
        observed, latent = super().next_indices()
        self._resize(GOAL)
        self._obs_frames += goal
        self._done_frames |= set(goal)
        return observed + sorted(goal), latent

    def _resize(self, by: int):
        self._video_length += by
        self._max_frames += by

    def _retry(self, count):
        if self.upstream:  # it takes the goal frames away a second time
            raise ValueError("list.remove(x): x not in list")
        return super()._retry(count)
