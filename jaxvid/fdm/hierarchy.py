"""Hierarchical schemes: first a few frames spread over the whole video, then those between."""

import numpy as np

from jaxvid.fdm.scheme import Scheme, register


class Hierarchy(Scheme):
    """`levels` passes over the video, each denser than the one before (FDM's "Hierarchy-N").

    A call that would leave room for fewer than two frames outside its latent span generates
    one frame less, and so on.
    """

    levels = 2

    def next_indices(self):
        room, latent, between = self._plan(self._step_size)
        observed = between + self._after(latent, (room - len(between)) // 2)
        observed += self._before(latent, room - len(observed))
        self._last = max(latent)
        return observed, latent

    def get_unconditional_indices(self):
        count = self._max_frames if self.upstream else min(self._max_frames, self._video_length)
        return [int(i) for i in np.linspace(0, self._video_length - 1, count)]

    def _plan(self, count: int) -> tuple[int, list[int], list[int]]:
        """Room for observed frames, latent frames, and the done frames in between."""
        latent = self._latents(count)
        between = [i for i in range(min(latent), max(latent)) if i in self._done_frames]
        room = self._max_frames - count
        return (room, latent, between) if room - len(between) >= 2 else self._retry(count - 1)

    def _retry(self, count: int):
        return self._plan(count)

    def _latents(self, count: int) -> list[int]:
        """The next `count` frames of the current level, or of the next one at the video's end."""
        T, done = self._video_length, self._done_frames
        if len(done) == len(self._obs_frames):
            self._level, self._last = 1, max(self._obs_frames)
        first = self._last + self._stride(count)
        if all(i in done for i in range(first, T)):
            self._level, self._last = self._level + 1, 0
            first = min(i for i in range(T) if i not in done) - 1 + self._stride(count)
        if self._level > 1:
            return self._walk(first, self._stride(count), count)
        spread = [int(i) for i in np.linspace(max(self._obs_frames) + 1, T - 0.001, count)]
        return spread if self.upstream else list(dict.fromkeys(spread))

    def _walk(self, frame: int, stride: int, count: int) -> list[int]:
        """Up to `count` missing frames from `frame` on, `stride` apart where they can be."""
        latent = []
        while len(latent) < count and frame < self._video_length:
            if frame in self._done_frames:
                frame += 1
                continue
            latent.append(frame)
            frame += stride if self.upstream else max(stride, 1)  # 0 repeats a frame
        return latent

    def _stride(self, count: int) -> int:
        """Distance of the current level's frames; raises ZeroDivisionError for count 1."""
        coarsest = (self._video_length - len(self._obs_frames)) / (count - 1)
        return int(coarsest ** ((self.levels - self._level) / (self.levels - 1)))

    def _after(self, latent, count: int) -> list[int]:
        done = [i for i in range(max(latent) + 1, self._video_length) if i in self._done_frames]
        return done[:count]

    def _before(self, latent, count: int) -> list[int]:
        """Nearest first; on level 1 spread over the given frames."""
        if self._level == 1:
            return [int(i) for i in np.linspace(0, max(self._obs_frames) + 0.999, count)]
        return [i for i in range(min(latent) - 1, -1, -1) if i in self._done_frames][:count]


for _levels in (2, 3, 4, 5):
    register(f"hierarchy-{_levels}")(type("Hierarchy", (Hierarchy,), {"levels": _levels}))
