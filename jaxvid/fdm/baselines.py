"""Schedules of other papers that FDM compares with or draws."""

from jaxvid.fdm.scheme import Scheme, register
from jaxvid.fdm.windows import last


@register("like-google")
class LikeGoogle(Scheme):
    """One model doing as "google" below: first every fourth frame, then the gaps."""

    def next_indices(self):
        T, done = self._video_length, self._done_frames
        grid = list(range((len(self._obs_frames) - 1) % 4, T, 4))
        latent = [i for i in grid if i not in done][: self._step_size]
        if latent:
            room = self._max_frames - len(latent)
            return last([i for i in grid if i in done], room, self.upstream), latent
        observed = [min(i for i in range(T) if i not in done) - 1]
        while len(observed + latent) + 4 < self._max_frames and max(observed + latent) < T - 1:
            latent += [i for i in range(observed[-1] + 1, observed[-1] + 4) if i < T]
            if max(latent) + 1 < T:
                observed.append(max(latent) + 1)
        return observed, latent


@register("google")
class Google(Scheme):
    """Video Diffusion Models (arXiv:2204.03458): one model generates every fourth frame, 16 frames
    a call, another one the gaps, 9 frames a call. max_frames and step_size are ignored.
    """

    conditional = False
    limits = "max_frames of at least 16 and n_obs of about 36"

    def __init__(self, video_length, num_obs, max_frames=16, step_size=8, **kwargs):
        super().__init__(video_length, num_obs, max_frames, step_size, **kwargs)
        self._gaps = 0  # calls of the second model so far

    def get_unconditional_indices(self):
        return list(range(16 if self.upstream else min(16, self._video_length)))

    def next_indices(self):
        if self._num_obs == 0:
            raise ValueError("it needs observed frames, at least 29")
        if self._gaps or self._video_length - max(self._done_frames) <= 4:
            self._gaps += 1
            return self._fill_gap(self._num_obs - 1 + 8 * (self._gaps - 1))
        return self._every_fourth(max(self._done_frames))

    def _every_fourth(self, newest):
        observed = [newest - 4 * i for i in range(7, -1, -1)]
        latent = list(range(newest + 4, min(newest + 36, self._video_length), 4))
        while len(observed) + len(latent) < 16 or 0 <= observed[0] < 4:
            observed.insert(0, observed[0] - 4)
        return observed, latent

    def _fill_gap(self, first):
        observed = list(range(first, min(first + 9, self._video_length), 4))
        latent = list(range(first + 1, min(first + 8, self._video_length)))
        latent = [i for i in latent if i not in observed[1:2]]
        while len(observed) + len(latent) < 9:
            observed.append(min(observed + latent) - 1)
        return observed, latent


@register("ho-et-al-for-vis")
class HoIllustration(Scheme):
    """Picture of the same paper's schedule for 64 frames; max_frames and step_size are ignored."""

    conditional = False
    limits = "T=64, n_obs=1 and max_frames of at least 9"

    def next_indices(self):
        start = min(i for i in range(64) if i not in self._done_frames)
        window = range(start - 1, start + 8)
        observed = [i for i in window if i in self._done_frames]
        latent = [i for i in window if i not in self._done_frames and i != 64]
        if 64 in window and 64 not in self._done_frames:
            observed.append(55)
        return observed, latent


@register("baby-cond-ho-et-al-for-vis")
class BabyIllustration(Scheme):
    """Picture of a small conditional schedule: 30 frames, 10 of them observed, all else ignored."""

    conditional = False
    limits = "T=30, n_obs=10 and max_frames of at least 8"
    TABLE = (
        ([3, 5, 7, 9], [11, 13, 15]),
        ([9, 11, 13, 15], [17, 19, 21]),
        ([15, 17, 19, 21], [23, 25, 27]),
        ([9, 11, 13, 15], [10, 12, 14]),
        ([15, 17, 19, 21], [16, 18, 20]),
        ([21, 23, 25, 27], [22, 24, 26]),
        ([23, 24, 25, 26, 27], [28, 29]),
    )

    def starts_by_itself(self):
        return False

    def is_done(self):
        return self._current_step == len(self.TABLE)

    def next_indices(self):
        observed, latent = self.TABLE[self._current_step]
        return list(observed), list(latent)

    def _require(self, condition, complaint):
        if not self.upstream:  # it checks nothing here
            super()._require(condition, complaint)
