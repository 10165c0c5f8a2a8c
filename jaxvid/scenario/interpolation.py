"""Where things are between recorded times: straight lines, constant angular velocity.

The two keys around a time also say how to go on before the first and after the last one, so one
formula serves inside and outside. Sums are in float64; results are float32.
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from jaxvid.scenario.scene import Kind, Track


class Boxes(NamedTuple):
    """The objects present at one time, ascending in id as a string."""

    ids: tuple[str, ...]
    kinds: tuple[Kind, ...]
    centers: np.ndarray  # (k, 3) float32 metres, world
    rotations: np.ndarray  # (k, 3, 3) float32, body (x forward, y left, z up) to world
    sizes: np.ndarray  # (k, 3) float32 length, width, height


class Keys(NamedTuple):
    """The two recorded entries between which, or beyond which, each of k times lies."""

    before: np.ndarray  # (k,) index
    after: np.ndarray  # (k,) index
    share: np.ndarray  # (k,) float64: 0 at `before`, 1 at `after`, beyond 0..1 outside


def surrounding_keys(times, query) -> Keys:
    """times: (n,) ascending, n >= 2; query: (k,). A time that is a key has a share of exactly 1.

    The first key has a share of 0. Two keys at one time give 0, the earlier one.
    """
    after = np.clip(np.searchsorted(times, query), 1, len(times) - 1)
    start, stop = times[after - 1], times[after]
    length = np.asarray(stop - start, np.float64)
    offset = np.asarray(query - start, np.float64)
    share = np.divide(offset, length, out=np.zeros_like(offset), where=length != 0)
    return Keys(after - 1, after, share)


def blend(first, second, share):
    """(k, c) values of two keys and share (k,). Exactly the one or the other at 0 and 1."""
    share = np.asarray(share)[..., None]
    return first * (1 - share) + second * share


def turn(first, second, share) -> Rotation:
    """The short way from quaternion `first` (k, 4) to `second`, at shares (k,), 0..1 or beyond."""
    start, stop = Rotation.from_quat(first), Rotation.from_quat(second)
    return start * Rotation.from_rotvec((start.inv() * stop).as_rotvec() * share[:, None])


def interpolate_poses(times, positions, quaternions, query) -> np.ndarray:
    """Poses at any times; outside the recorded range the velocities of its end go on.

    Args:
      times: (n,) increasing; positions: (n, 3) metres; quaternions: (n, 4) x, y, z, w.
      query: (k,) in the unit of `times`.
    Returns:
      (k, 4, 4) float32 matrices.
    """
    before, after, share = surrounding_keys(times, query)
    positions = np.asarray(positions, np.float64)
    poses = np.tile(np.eye(4, dtype=np.float32), (len(share), 1, 1))
    poses[:, :3, :3] = turn(quaternions[before], quaternions[after], share).as_matrix()
    poses[:, :3, 3] = blend(positions[before], positions[after], share)
    return poses


def boxes_at(tracks: tuple[Track, ...], time_us: int) -> Boxes:
    """The boxes of all tracks that exist at an integer time in microseconds.

    A track lasts from its first to its last entry, plus its `extrapolation_us` on both sides,
    limits included. Gaps inside it are bridged, whatever their length. Sizes do not extrapolate.
    """
    shown = [track for track in tracks if is_present(track, time_us)]
    if not shown:
        return Boxes((), (), *(np.zeros((0, *s), np.float32) for s in ((3,), (3, 3), (3,))))
    keys = [surrounding_keys(track.timestamps, np.array([time_us])) for track in shown]
    share = np.concatenate([key.share for key in keys])

    def pair(name):
        arrays = [np.asarray(getattr(track, name), np.float64) for track in shown]
        return [
            np.concatenate([a[key[side]] for a, key in zip(arrays, keys, strict=True)])
            for side in (0, 1)
        ]

    return Boxes(
        tuple(track.id for track in shown),
        tuple(track.kind for track in shown),
        blend(*pair("centers"), share).astype(np.float32),
        turn(*pair("rotations"), share).as_matrix().astype(np.float32),
        blend(*pair("sizes"), np.clip(share, 0, 1)).astype(np.float32),
    )


def is_present(track: Track, time_us: int) -> bool:
    """Whether the track exists at that time; limits included."""
    early, late = track.timestamps[0] - time_us, time_us - track.timestamps[-1]
    return max(early, late) <= track.extrapolation_us
