"""Schemes that observe, for each video, the existing frames that differ most from each other."""

import numpy as np

from jaxvid.fdm.hierarchy import Hierarchy
from jaxvid.fdm.scheme import NoTermination, Scheme, register
from jaxvid.fdm.windows import Windows


class Adaptive(Scheme):
    """Base. `embed` is set from outside before the first step: either an array (b, T, ...), or
    a function from a list of n frame indices to an array (b, n, ...) that looks at the frames
    as they are now. Frames are compared by squared Euclidean distance; FDM embeds with LPIPS.

    A frame is embedded once and again only after it was generated anew.
    """

    adaptive = True
    embed = None

    def select(self, candidates: list[int], always: list[int], count: int) -> list[list[int]]:
        """Greedy farthest-point selection of `count` candidates for each video."""
        embedded = self._embedded(candidates)
        places = [candidates.index(i) for i in always]
        chosen = [_farthest(e, places, count) for e in embedded]
        return [[candidates[i] for i in row] for row in chosen]

    def _embedded(self, frames: list[int]) -> np.ndarray:
        """(b, n, d), float32."""
        known = self.__dict__.setdefault("_known", {})
        new = [i for i in frames if i not in known]
        if new:
            rows = self.embed(new) if callable(self.embed) else np.asarray(self.embed)[:, new]
            rows = np.asarray(rows, np.float32)
            rows = rows.reshape(*rows.shape[:2], -1)
            known.update({frame: rows[:, i] for i, frame in enumerate(new)})
        return np.stack([known[i] for i in frames], axis=1)

    def __next__(self):
        step = super().__next__()
        for frame in step.latent:  # about to change
            self.__dict__.get("_known", {}).pop(frame, None)
        return step


def _farthest(embedded: np.ndarray, always: list[int], count: int) -> list[int]:
    """Indices into embedded (n, d): first `always`, then the farthest from all chosen so far.

    Ties go to the first; once all are taken, frames are repeated.
    """
    chosen = always[:1]
    nearest = np.full(len(embedded), np.inf)
    for i in range(1, count):
        distances = np.square(embedded - embedded[chosen[-1]]).sum(-1)
        nearest = np.minimum(nearest, distances)
        chosen.append(always[i] if i < len(always) else int(np.argmax(nearest)))
    return chosen


@register("adaptive-autoreg")
class AdaptiveAutoregressive(Adaptive, Windows):
    """autoreg with the last frame and those that differ most from it and each other."""

    def next_indices(self):
        candidates = sorted(self._done_frames, reverse=True)
        room = self._max_frames - self._step_size
        return self.select(candidates, candidates[:1], room), self.window(self._step_size)


class AdaptiveHierarchy(Adaptive, Hierarchy):
    """hierarchy-N that observes the frames in between, two before and one after the latent
    ones, and fills the call by content."""

    def next_indices(self):
        room, latent, between = self._plan(self._step_size)
        self._last = max(latent)
        always = between + self._two_before(latent) + self._after(latent, 1)
        # The order of a set of ints only matters for exactly equal distances, as upstream.
        return self.select(list(self._done_frames), always, room), latent

    def _two_before(self, latent):
        """Upstream searches for the second one forever if there is none."""
        before = [i for i in range(min(latent) - 1, -1, -1) if i in self._done_frames][:2]
        if self.upstream and len(before) < 2:
            raise NoTermination("there are no two frames before the latent ones")
        return before


for _levels in (2, 3):
    register(f"adaptive-hierarchy-{_levels}")(
        type("AdaptiveHierarchy", (AdaptiveHierarchy,), {"levels": _levels})
    )
