"""`<scheme>+refine[-n]`: complete the video by <scheme>, then generate every frame n times anew.

This is block Gibbs sampling: a sweep goes through all frames that are not given, step_size at a
time, and draws each block again given the existing frames nearest to it, on both sides. What an
early call could not know about later frames is put right. n is 1 if not given.
"""

from jaxvid.fdm.scheme import Scheme, Step


def sweep(T: int, given, max_frames: int, step_size: int):
    """Yields (observed, latent) for one sweep over the frames that are not in `given`."""
    free = [i for i in range(T) if i not in given]
    for first in range(0, len(free), step_size):
        latent = free[first : first + step_size]
        yield nearest(T, latent, max_frames - len(latent)), latent


def nearest(T: int, latent: list[int], count: int) -> list[int]:
    """The `count` other frames nearest to any of `latent`, the earlier at equal distance."""
    others = [i for i in range(T) if i not in latent]
    others.sort(key=lambda i: min(abs(i - j) for j in latent))
    return sorted(others[:count])


class Refined(Scheme):
    """Wraps another scheme, which may be adaptive."""

    def __init__(self, base: Scheme, sweeps: int = 1):
        super().__init__(base._video_length, base._num_obs, base._max_frames, base._step_size)
        self.base, self.sweeps, self._sweeping = base, sweeps, None
        self.name = f"{base.name}+refine-{sweeps}"
        self._done_frames = set(base._done_frames)

    @property
    def step_limit(self):
        return self.base.step_limit + self.sweeps * self._video_length

    def is_done(self):
        return False  # until the sweeps are over

    def __next__(self) -> Step:
        step = next(self.base, None) if self._sweeping is None else None
        if step is None:
            return super().__next__()
        self._done_frames.update(step.latent)
        self._current_step += 1
        return step

    @property
    def observed_frames(self):
        return self.base.observed_frames

    def starts_by_itself(self):
        return False

    def next_indices(self):
        if self._sweeping is None:
            sizes = self._video_length, self.observed_frames, self._max_frames, self._step_size
            self._sweeping = (step for _ in range(self.sweeps) for step in sweep(*sizes))
        return next(self._sweeping)
