"""What a sampling scheme is: a list of network calls, each saying which frames are observed
and which are generated.

Write your own as a function that yields (observed, latent) lists,

    @register("strided")
    def strided(T, n_obs, max_frames, step_size):
        for first in range(n_obs, T, step_size):
            yield list(range(n_obs)), list(range(first, min(first + step_size, T)))

or as a subclass of `Scheme` with `next_indices` (and `is_done`, if finished does not mean that
every frame exists). Either may generate a frame again that exists already.
"""

import difflib
from collections.abc import Callable
from typing import NamedTuple

from jaxvid.fdm import optimal

SCHEMES: dict[str, type["Scheme"]] = {}


class NoTermination(ValueError):  # noqa: N818  the goldens' name
    """A scheme that would never finish."""


class Step(NamedTuple):
    """One call of the network; `observed` enters before `latent`, in this order."""

    observed: list  # frame indices; adaptive schemes: one such list for each video of the batch
    latent: list[int]  # frame indices, the same for all videos

    def rows(self, batch: int) -> list[list[int]]:
        """The observed frames of each of `batch` videos."""
        adaptive = bool(self.observed) and isinstance(self.observed[0], list)
        return self.observed if adaptive else [list(self.observed) for _ in range(batch)]

    @property
    def frames(self) -> int:
        """Frames of one video in this call."""
        return len(self.rows(1)[0]) + len(self.latent)


class Scheme:
    """Iterator over the steps that complete one video, as in FDM's `inference_util.py`.

    Subclasses read and may change these attributes (the names that FDM's README documents):
      _video_length: T; _num_obs: frames observed at the start of the video;
      _max_frames, also _max_T: most frames of one call; _step_size: frames to generate in a call;
      _done_frames: set of the frames that exist, the observed ones included;
      _obs_frames: list of the observed frames (without any: the frames of the first call).

    Attributes set from outside, before the first step:
      optimal: {step: observed frames} that replace the observed frames of the scheme, or None.
      upstream: keep upstream's faults (see `schemes.make_scheme`).
    """

    name = "scheme"
    conditional = True  # needs room for observed frames: step_size < max_frames
    limits = ""  # for messages: the settings it is made for, if only a few work
    adaptive = False  # chooses the observed frames of each video from its content

    def __init__(self, video_length, num_obs, max_frames, step_size, optimal_schedule_path=None):
        self._video_length, self._num_obs = video_length, num_obs
        self._max_frames, self._step_size = max_frames, step_size
        goal = self.goal_frames()
        self._done_frames = set(range(num_obs)) | set(goal)
        self._obs_frames = [*range(num_obs), *goal]
        self._current_step = 0
        self._given = None
        self.upstream = False
        self.optimal = (
            optimal.load_schedule(optimal_schedule_path) if optimal_schedule_path else None
        )

    @property
    def _max_T(self):  # noqa: N802
        return self._max_frames

    @_max_T.setter
    def _max_T(self, value):  # noqa: N802
        self._max_frames = value

    @property
    def observed_frames(self) -> frozenset[int]:
        """The frames whose true content a sampler copies in at the start and never overwrites."""
        return frozenset(self._done_frames) if self._given is None else self._given

    @property
    def step_limit(self) -> int:
        """A scheme with more steps than this is taken for one that never ends."""
        return 10 * self._video_length + 100

    def goal_frames(self) -> list[int]:
        """Observed frames besides the first ones."""
        return []

    def get_unconditional_indices(self) -> list[int]:
        """Frames of the first call of a video without observed frames."""
        count = self._max_frames if self.upstream else min(self._max_frames, self._video_length)
        return list(range(count))

    def next_indices(self) -> tuple[list, list[int]]:
        """The observed and the latent frames of the next call."""
        raise NotImplementedError

    def is_done(self) -> bool:
        return len(self._done_frames) >= self._video_length

    def __iter__(self):
        return self

    def __next__(self) -> Step:
        self._given = self.observed_frames
        if self.is_done():
            raise StopIteration
        if self._current_step >= self.step_limit:
            raise NoTermination(f"no end after {self.step_limit} steps")
        if self._num_obs == 0 and self._current_step == 0 and self.starts_by_itself():
            observed, latent = [], self.get_unconditional_indices()
            self._obs_frames = list(latent)
        else:
            observed, latent = self.next_indices()
            observed = self._optimal_observed(observed)
        step = self._checked(observed, latent)
        self._done_frames.update(i for i in step.latent if i not in self._done_frames)
        self._current_step += 1
        return step

    def starts_by_itself(self) -> bool:
        """Whether the first call without observed frames is get_unconditional_indices()."""
        return True

    def _optimal_observed(self, observed):
        if self.optimal is None or self.adaptive:
            return observed
        if self._current_step in self.optimal or self.upstream:
            return self.optimal.get(self._current_step, [])
        raise ValueError(f"the optimal schedule has no step {self._current_step}")

    def _checked(self, observed, latent) -> Step:
        """The step with plain ints; raises (AssertionError as upstream, else ValueError)."""
        lists = isinstance(observed, list) and isinstance(latent, list)
        self._require(lists or not self.upstream, "next_indices must return two lists")
        observed = [_ints(i) if hasattr(i, "__len__") else int(i) for i in observed]
        step = Step(observed, _ints(latent))
        unknown = {i for row in step.rows(1) for i in row} - self._done_frames
        self._require(not unknown, f"observes frames {sorted(unknown)[:5]} before they exist")
        T = self._video_length
        outside = [i for i in step.latent if i >= T or (i < 0 and not self.upstream)]
        self._require(not outside, f"generates frames {outside[:5]} of a video of {T} frames")
        if not self.upstream:
            self._check_sound(step)
        return step

    def _check_sound(self, step: Step) -> None:
        """What upstream lets pass."""
        if not step.latent:
            raise NoTermination(f"step {self._current_step} generates no frame")
        repeated = len(set(step.latent)) < len(step.latent)
        self._require(not repeated, f"generates a frame twice: {step.latent}")
        self._require(
            step.frames <= self._max_frames,
            f"needs {step.frames} frames in one call, more than max_frames={self._max_frames}",
        )

    def _require(self, condition, complaint: str) -> None:
        if not condition:
            error = AssertionError if self.upstream else ValueError
            raise error(f"step {self._current_step} {complaint}")


class FunctionScheme(Scheme):
    """A scheme made of a generator function (see the head of this file)."""

    function: Callable

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._steps = None

    def starts_by_itself(self):
        return False

    def is_done(self):
        return False  # until the function returns

    def next_indices(self):
        if self._steps is None:
            sizes = self._video_length, self._num_obs, self._max_frames, self._step_size
            self._steps = iter(type(self).function(*sizes))
        return next(self._steps)  # its StopIteration ends the scheme


def register(*names: str):
    """Decorator that adds a scheme class or a generator function under these names."""

    def add(scheme):
        cls = scheme
        if not isinstance(scheme, type):
            attributes = {"function": staticmethod(scheme), "conditional": False}
            cls = type(scheme.__name__, (FunctionScheme,), attributes)
        cls.name = names[0]
        SCHEMES.update(dict.fromkeys(names, cls))
        return scheme

    return add


def find(name: str) -> type[Scheme]:
    """The registered class; raises ValueError with near names."""
    if name not in SCHEMES:
        near = difflib.get_close_matches(name, SCHEMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(SCHEMES)}"
        raise ValueError(f"unknown scheme {name!r}; {hint}")
    return SCHEMES[name]


def _ints(indices) -> list[int]:
    return [int(i) for i in indices]
