"""Schemes that walk through the video in windows of consecutive frames."""

from jaxvid.fdm.scheme import Scheme, register


def last(frames: list[int], count: int, upstream: bool = False) -> list[int]:
    """The last `count` frames. If there is no room, that is none; upstream then takes others."""
    return frames[-count:] if upstream or count > 0 else []


class Windows(Scheme):
    """Base: generates the next step_size frames after the last one that exists."""

    def window(self, size: int, first: int | None = None) -> list[int]:
        first = max(self._done_frames) + 1 if first is None else first
        return list(range(first, min(first + size, self._video_length)))

    def last_frames(self, frames, count: int) -> list[int]:
        return last(sorted(frames), count, self.upstream)


@register("autoreg")
class Autoregressive(Windows):
    """Observes the frames just before the window."""

    def next_indices(self):
        room = self._max_frames - self._step_size
        observed = self.last_frames(self._done_frames, room)
        return observed, self.window(self._step_size, observed[-1] + 1)


@register("independent")
class Independent(Windows):
    """Observes only given frames, so that errors cannot build up."""

    def next_indices(self):
        room = self._max_frames - self._step_size
        return self.last_frames(self._obs_frames, room), self.window(self._step_size)


@register("really-independent")
class ReallyIndependent(Windows):
    """Observes nothing and fills the whole call (max_frames, not step_size) with new frames."""

    conditional = False

    def next_indices(self):
        return [], self.window(self._max_frames)


@register("mixed-autoreg-independent", "long-range")
class LongRange(Windows):
    """Half of the observed frames just before the window, the rest from the given ones."""

    def mixed(self) -> list[int]:
        room = self._max_frames - self._step_size
        observed = set(self.last_frames(self._done_frames, room // 2))
        for frame in sorted(self._obs_frames, reverse=True):
            observed.add(frame)
            if len(observed) == room:
                break
        return sorted(observed)

    def next_indices(self):
        return self.mixed(), self.window(self._step_size)


@register("exp-past")
class ExponentialPast(Windows):
    """Observes frames at distances 1, 2, 4, ... and fills the call with the nearest others.

    The last window is cut at the end of the video; upstream lets it run over the end and fails.
    """

    def next_indices(self):
        first = max(self._done_frames) + 1
        observed = [first - 2**j for j in range(first.bit_length() - 1)]
        stop = first + min(self._step_size, self._video_length)
        latent = list(range(first, stop if self.upstream else min(stop, self._video_length)))
        for frame in range(first - 1, -1, -1):
            if len(observed) + len(latent) >= self._max_frames:
                break
            if frame not in observed:
                observed.append(frame)
        return observed, latent
