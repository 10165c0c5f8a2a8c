"""Sampling schemes by name: checks of their settings, tables of their steps.

    for step in make_scheme("hierarchy-2", T=300, n_obs=36, max_frames=20, step_size=10):
        step.observed, step.latent

`scheme.py` says how to add one; `windows.py`, `hierarchy.py`, `goal.py`, `adaptive.py`,
`baselines.py` and `refine.py` hold those that exist.
"""

import re

import numpy as np

from jaxvid.fdm import adaptive, baselines, goal, hierarchy, windows
from jaxvid.fdm.refine import Refined
from jaxvid.fdm.scheme import SCHEMES, FunctionScheme, NoTermination, Scheme, Step, find, register

__all__ = [
    "SCHEMES", "FunctionScheme", "NoTermination", "Scheme", "Step",
    "is_adaptive", "make_scheme", "register", "validate",
]  # fmt: skip

REGISTERED_BY = (windows, hierarchy, goal, adaptive, baselines)
_REFINE = re.compile(r"(?P<base>.+)\+refine(-(?P<sweeps>[1-9]\d*))?")


def make_scheme(
    name: str, T: int, n_obs: int, max_frames: int, step_size: int,
    *, embed=None, optimal=None, upstream: bool = False,
) -> Scheme:  # fmt: skip
    """An iterator over the steps that complete a video of T frames.

    Args:
      name: a name in SCHEMES, or `<name>+refine[-n]` (see `refine.py`).
      T, n_obs: frames of the video, and how many are observed at its start.
      max_frames, step_size: most frames of one call, and how many of them to generate.
      embed: for adaptive schemes, an array (b, T, ...) or a function of frame indices; see
        `adaptive.Adaptive`. Adaptive schemes look at the video between their steps.
      optimal: {step: observed frames}; see `optimal.py`.
      upstream: keeps upstream's faults, for comparison with its tables: nothing is checked
        beforehand, and settings that it cannot do raise its exceptions in the middle.
    Raises ValueError, before the first step, for settings that cannot complete the video.
    """
    if not upstream:
        validate(name, T, n_obs, max_frames, step_size, optimal)
    scheme = _build(name, T, n_obs, max_frames, step_size, optimal, upstream)
    if is_adaptive(name):
        if embed is None:
            raise ValueError(f"the scheme {name!r} needs `embed`, the look of the frames")
        getattr(scheme, "base", scheme).embed = embed
    return scheme


def is_adaptive(name: str) -> bool:
    """Whether the observed frames differ from video to video."""
    return find(_split(name)[0]).adaptive


def validate(
    name: str, T: int, n_obs: int, max_frames: int, step_size: int, optimal=None
) -> list[Step]:
    """Runs the scheme without a network and returns its steps.

    The steps of adaptive schemes have the right lengths and latent frames, but the observed ones
    depend on the video. Raises ValueError for settings that cannot complete a video.
    """
    cls = find(_split(name)[0])
    _check_numbers(name, cls, T, n_obs, max_frames, step_size)
    if optimal is not None and cls.adaptive:
        raise ValueError(
            f"the scheme {name!r} chooses its own frames; leave the optimal schedule out"
        )
    settings = f"T={T}, n_obs={n_obs}, max_frames={max_frames}, step_size={step_size}"
    try:
        return _dry_run(name, T, n_obs, max_frames, step_size, optimal)
    except (ArithmeticError, AssertionError, LookupError, ValueError) as error:
        hint = _hint(name, T, n_obs, max_frames, step_size) if optimal is None else ""
        reason = "it runs out of room" if isinstance(error, ZeroDivisionError) else error
        raise ValueError(f"the scheme {name!r} cannot do {settings}: {reason}{hint}") from error


def _split(name: str) -> tuple[str, int]:
    """(name of the base scheme, number of refining sweeps)."""
    match = _REFINE.fullmatch(name)
    return (match["base"], int(match["sweeps"] or 1)) if match else (name, 0)


def _build(name, T, n_obs, max_frames, step_size, optimal, upstream) -> Scheme:
    base, sweeps = _split(name)
    sizes = {"video_length": T, "num_obs": n_obs, "max_frames": max_frames, "step_size": step_size}
    scheme = find(base)(**sizes)
    scheme.optimal, scheme.upstream = optimal, upstream
    return Refined(scheme, sweeps) if sweeps else scheme


def _check_numbers(name, cls, T, n_obs, max_frames, step_size):
    for what, value, least in (("T", T, 1), ("n_obs", n_obs, 0), ("max_frames", max_frames, 1),
                               ("step_size", step_size, 1)):  # fmt: skip
        if value < least:
            raise ValueError(f"{what}={value} must be at least {least}")
    if n_obs >= T:
        raise ValueError(
            f"n_obs={n_obs} leaves none of T={T} frames to generate; use at most {T - 1}"
        )
    room = max_frames - step_size
    needed = 2 if issubclass(cls, windows.LongRange) else 1
    if cls.conditional and room < needed:
        largest = max_frames - needed
        way = f"a step_size of at most {largest}" if largest > 0 else f"max_frames of {needed + 1}"
        raise ValueError(
            f"step_size={step_size} leaves {name} room for {max(room, 0)} observed frames in "
            f"max_frames={max_frames}, and it needs {needed}; use {way}"
        )
    if issubclass(cls, hierarchy.Hierarchy) and step_size == 1:
        raise ValueError(f"{name} cannot spread step_size=1 frame over a video; use at least 2")


def _dry_run(name, T, n_obs, max_frames, step_size, optimal=None) -> list[Step]:
    scheme = _build(name, T, n_obs, max_frames, step_size, optimal, upstream=False)
    base = getattr(scheme, "base", scheme)
    base.embed = lambda frames: np.zeros((1, len(frames), 1))
    ends = set(base.goal_frames())
    if ends and n_obs >= min(ends):
        raise ValueError(f"its goal, the last {len(ends)} frames, leaves none to generate")
    steps = list(scheme)
    missing = set(range(T)) - scheme.observed_frames - {i for step in steps for i in step.latent}
    if missing:
        raise ValueError(f"it never generates frames {sorted(missing)[:5]}")
    return steps


def _hint(name, T, n_obs, max_frames, step_size) -> str:
    """The nearest step_size or max_frames that works, as the end of a message."""
    limits = find(_split(name)[0]).limits
    if limits:
        return f"; it is made for {limits}"
    sizes = sorted(range(1, max_frames), key=lambda size: abs(size - step_size))
    trials = [("step_size", size, max_frames, size) for size in sizes[:8]]
    trials += [("max_frames", max_frames + i, max_frames + i, step_size) for i in range(1, 17)]
    for what, value, *sizes in trials:
        try:
            _dry_run(name, T, n_obs, *sizes)
        except (ArithmeticError, AssertionError, LookupError, ValueError):
            continue
        return f"; {what}={value} works"
    return "; use another scheme"
