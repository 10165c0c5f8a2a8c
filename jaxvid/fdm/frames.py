"""Which frames of a training video the network sees, and in which role (FDM, section 4.1).

A row of a batch holds up to N frames of its video: latent ones, to be denoised, observed ones,
and, with some settings, "kinda-marginal" ones, that are present without content. What is left
is filled with random frames of another video. Everything random comes from a `Draws` object;
the arithmetic is float32, as upstream's.
"""

from typing import NamedTuple, Protocol

import numpy as np

DEFAULT = "differently-spaced-groups"
F32 = np.float32


class Draws(Protocol):
    """A source of random numbers, asked in upstream's order."""

    def integer(self, low: int, high: int) -> int: ...  # low <= i < high
    def scale(self) -> float: ...  # uniform in [0, 1), for a group's spacing
    def uniform(self) -> float: ...  # uniform in [0, 1), for places and coins
    def choice(self, n: int, size: int, replace: bool) -> np.ndarray: ...  # of range(n)
    def padding(self, n: int, size: int) -> np.ndarray: ...  # of range(n), with replacement


class RandomDraws:
    """Draws of one row, a function of (seed, step, row): interrupted runs go on the same."""

    def __init__(self, seed: int, step: int, row: int):
        bits = np.random.Philox(key=[seed, step], counter=[0, 0, 0, row])
        self._rng = np.random.Generator(bits)

    def integer(self, low, high):
        return int(self._rng.integers(low, high))

    def uniform(self):
        return self._rng.random(dtype=F32)

    scale = uniform

    def choice(self, n, size, replace):
        return self._rng.choice(n, size, replace=replace)

    def padding(self, n, size):
        return self._rng.integers(n, size=size)


class Roles(NamedTuple):
    """Masks (t,) bool over the frames of one video; no frame is in two."""

    observed: np.ndarray
    latent: np.ndarray
    marginal: np.ndarray

    @property
    def count(self) -> int:
        return int(sum(mask.sum() for mask in self))


class FrameSets(NamedTuple):
    """What a batch of b rows with k frames each is made of; masks are float32 (b, k)."""

    frame_indices: np.ndarray  # (b, k) int32, places in the video
    obs_mask: np.ndarray
    latent_mask: np.ndarray
    kinda_mask: np.ndarray
    other: np.ndarray  # (b, k) bool, frames taken from the other video of the row


def draw_group(draws: Draws, most: int, T: int, consecutive: bool = False) -> list[int]:
    """1 to `most` frames in arithmetic progression, with log-uniform spacing of at least 1."""
    while True:
        size = draws.integer(1, most + 1)
        scale = F32(1)
        if not consecutive:
            widest = F32(T) / (F32(size) - F32(0.999))
            scale = np.exp(F32(draws.scale()) * np.log(widest))
        first = F32(draws.uniform()) * (F32(T) - scale * F32(size - 1))
        frames = [int(first + F32(i) * scale) for i in range(size)]
        if all(0 <= i < T for i in frames):
            return frames


def draw_roles(
    draws: Draws, T: int, max_frames: int, distribution: str = DEFAULT, marginal: bool = False
) -> Roles:
    """The roles of one video's frames.

    Args:
      distribution: upstream's `mask_distribution`: differently-spaced-groups, consecutive-groups,
        differently-spaced-groups-no-marg, one-group, uniform, autoregressive-<n_obs>,
        linspace-<low>-<high>-<n>, linspace-no-obs-<low>-<high>-<n>.
      marginal: with groups, also draw kinda-marginal ones (`do_inefficient_marg`).
    """
    family, sizes = check_distribution(distribution, T, max_frames)
    roles = Roles(*np.zeros((3, T), bool))
    if family == "autoregressive":
        _draw_window(draws, roles, max_frames, *sizes)
    elif family.startswith("linspace"):
        _draw_linspace(draws, roles, max_frames, *sizes, observe=family == "linspace")
    elif family == "uniform":
        _draw_uniform(draws, roles, max_frames)
    elif family == "one-group":
        _draw_one_group(draws, roles, max_frames)
    elif family == "differently-spaced-groups-no-marg":
        _observe_groups(draws, roles, np.arange(T), max_frames)
        roles.latent[:] = ~roles.observed
    else:
        _draw_groups(draws, roles, max_frames, family == "consecutive-groups", marginal)
    return roles


def check_distribution(distribution: str, T: int, max_frames: int) -> tuple[str, list[int]]:
    """The family of a distribution and the numbers in its name; ValueError if it cannot be."""
    numbers = {"linspace-no-obs": 3, "linspace": 3, "autoregressive": 1, "uniform": 0,
               "one-group": 0, "consecutive-groups": 0, DEFAULT: 0,
               "differently-spaced-groups-no-marg": 0}  # fmt: skip
    for family, count in numbers.items():
        parts = distribution.removeprefix(family).split("-")[1:]
        fits = distribution == "-".join([family, *parts]) and len(parts) == count
        if fits and all(part.isdigit() for part in parts):
            break
    else:
        raise ValueError(f"unknown mask_distribution={distribution!r}; use one of {list(numbers)}")
    sizes = [int(part) for part in parts]
    if family.endswith("no-marg") and max_frames != T:
        raise ValueError(f"{family} needs max_frames={max_frames} to be T={T}")
    if max_frames > T:
        raise ValueError(f"max_frames={max_frames} exceeds the T={T} frames of a clip; lower it")
    if family == "uniform" and max_frames < 2:
        raise ValueError(f"{family} needs max_frames of at least 2")
    if family == "autoregressive" and sizes[0] >= max_frames:
        raise ValueError(f"{distribution} leaves nothing to generate in max_frames={max_frames}")
    if family.startswith("linspace"):
        low, high, n = sizes
        if n > max_frames or not low <= high < T:
            raise ValueError(f"{distribution} does not fit max_frames={max_frames} and T={T}")
    return family, sizes


def _draw_groups(draws, roles, most, consecutive, marginal):
    """A latent group, then others with equal chances for each role until one does not fit."""
    T = len(roles.latent)
    roles.latent[draw_group(draws, most, T, consecutive)] = True
    kinds = roles if marginal else roles[:2]
    while True:
        mask = kinds[min(int(draws.uniform() * len(kinds)), len(kinds) - 1)]
        group = draw_group(draws, most, T, consecutive)
        free = [i for i in group if not any(role[i] for role in roles)]
        if len(free) > most - roles.count:
            return
        mask[free] = True


def _observe_groups(draws, roles, frames, most):
    """Groups of `frames` turn observed, as long as a coin says so and one latent one is left."""
    while draws.uniform() > 0.5 and most - roles.observed.sum() > 1:
        group = frames[draw_group(draws, most - int(roles.observed.sum()) - 1, len(frames))]
        roles.observed[group], roles.latent[group] = True, False


def _draw_window(draws, roles, most, observed):
    first = draws.integer(0, len(roles.latent) - most + 1)
    roles.observed[first : first + observed] = True
    roles.latent[first + observed : first + most] = True


def _draw_linspace(draws, roles, most, low, high, count, observe):
    frames = _linspace(low, high, count)
    roles.latent[frames] = True
    if observe:
        _observe_groups(draws, roles, frames, min(most, count))


def _draw_uniform(draws, roles, most):
    count = draws.integer(1, most)
    observed = draws.integer(0, count)
    frames = draws.choice(len(roles.latent), count, False)
    roles.observed[frames[:observed]] = True
    roles.latent[frames[observed:]] = True


def _draw_one_group(draws, roles, most):
    """Of one group some are observed: as many draws with replacement as a uniform number says."""
    group = np.array(draw_group(draws, most, len(roles.latent)))
    observed = group[draws.choice(len(group), draws.integer(0, len(group)), True)]
    roles.latent[group] = True
    roles.observed[observed], roles.latent[observed] = True, False


def _linspace(low, high, count):
    """torch.linspace cut to whole numbers: a float32 step, counted from both ends, rounded once."""
    if count == 1:
        return np.array([low])
    step = float(F32(high - low) / F32(count - 1))
    i = np.arange(count)
    values = np.where(i < count // 2, low + step * i, high - step * (count - 1 - i))
    return values.astype(F32).astype(np.int64)


def assemble(
    draws: list[Draws], roles: list[Roles], max_frames: int, *,
    random_padding: bool = True, upstream_masks: bool = False,
) -> FrameSets:  # fmt: skip
    """Selected frames of each row in increasing order, then padding.

    Args:
      random_padding: fill up to max_frames with random frames of another video
        (`pad_with_random_frames`); otherwise up to the longest row with frame 0 of the same.
      upstream_masks: padding takes the masks that its frame index has in the row's own video,
        so that a foreign frame can count as observed or latent; by default it has none.
    """
    length = max_frames if random_padding else max(row.count for row in roles)
    rows = []
    for draw, role in zip(draws, roles, strict=True):
        frames = np.flatnonzero(role.observed | role.latent | role.marginal)
        missing = length - len(frames)
        T = len(role.latent)
        fill = draw.padding(T, missing) if random_padding else np.zeros(missing, np.int64)
        indices = np.concatenate([frames, fill])
        real = np.arange(length) < len(frames)
        masks = [mask[indices] & (real | upstream_masks) for mask in role]
        rows.append((indices, *masks, ~real & random_padding))
    indices, *masks, other = (np.stack(column) for column in zip(*rows, strict=True))
    return FrameSets(indices.astype(np.int32), *(mask.astype(F32) for mask in masks), other)


def sample_frames(
    seed: int, step: int, rows, T: int, max_frames: int, *, distribution: str = DEFAULT,
    marginal: bool = False, random_padding: bool = True, upstream_masks: bool = False,
) -> FrameSets:  # fmt: skip
    """The frame sets of one training step; `rows` are row numbers in the global batch."""
    draws = [RandomDraws(seed, step, row) for row in rows]
    roles = [draw_roles(d, T, max_frames, distribution, marginal) for d in draws]
    return assemble(
        draws, roles, max_frames, random_padding=random_padding, upstream_masks=upstream_masks
    )


def gather(video: np.ndarray, other: np.ndarray, sets: FrameSets) -> np.ndarray:
    """(b, t, ...) videos and others to the network's (b, k, ...)."""
    rows = np.arange(len(video))[:, None]
    mine, foreign = video[rows, sets.frame_indices], other[rows, sets.frame_indices]
    extra = (1,) * (video.ndim - 2)
    return np.where(sets.other.reshape(*sets.other.shape, *extra), foreign, mine)
