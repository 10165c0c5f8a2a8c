"""Checks of what a scene says: numbers that are finite, ordered and in the right units.

All raise ValueError with one line. `where` starts it: the file, and the element in it.
"""

import numpy as np

LONGEST = 3600.0  # seconds
LATEST = 10**17  # microseconds since 1970: the year 5138
SLOWEST, FASTEST = 30.0, 0.0005  # seconds between poses, as a median
SPEED = 150.0  # metres per second
BIGGEST = 60.0  # metres, the longest side of a typical object
FAR = 30.0  # metres from the vehicle's origin to a camera
HUGE = 1e9  # metres
UNSTEADY = 1e5  # metres from the world's origin; float32 steps are 8 mm there


def check_pose_times(times, where: str) -> None:
    """times: (n,) microseconds, of the vehicle's poses."""
    if len(times) < 2:
        raise ValueError(f"{where}: {len(times)} poses; at least 2 are needed")
    check_increasing(times, where)
    first, last = float(times[0]), float(times[-1])
    step, length = float(np.median(np.diff(times))) / 1e6, (last - first) / 1e6
    if step > SLOWEST or length > LONGEST or times[-1] > LATEST:
        wrong, unit = f"{step:.4g} s apart over {length:.4g} s", "nanoseconds"
    elif step < FASTEST or length < 0.05:
        wrong, unit = f"{step:.4g} s apart over {length:.4g} s", "milliseconds or seconds"
    else:
        return
    raise ValueError(
        f"{where}: as microseconds the poses are {wrong}; the timestamps look like {unit}: "
        f"write microseconds, poses at most {SLOWEST:g} s apart and {LONGEST:g} s in all"
    )


def check_increasing(times, where: str) -> None:
    """times: (n,), strictly increasing."""
    bad = np.flatnonzero(np.diff(times) <= 0)
    if len(bad):
        i = bad[0]
        raise ValueError(
            f"{where}: timestamps do not increase: {times[i]} is followed by {times[i + 1]} "
            f"(row {i + 1}); sort the rows and drop repeated ones"
        )


def check_finite(numbers, where: str, what: str) -> None:
    """numbers: (n, ...), one row per entry."""
    bad = ~(np.abs(numbers) < HUGE).all(axis=tuple(range(1, numbers.ndim)))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{where}: {what} holds NaN, nothing or huge numbers in {bad.sum()} of {len(bad)} rows "
            f"(first: row {row}); remove or repair them"
        )


def check_quaternions(quaternions, where: str) -> None:
    """quaternions: (n, 4), of any length but zero."""
    bad = np.flatnonzero(np.linalg.norm(quaternions, axis=1) <= 1e-6)
    if len(bad):
        raise ValueError(
            f"{where}: the orientation of row {bad[0]} is zero; give unit quaternions x, y, z, w"
        )


def check_rotations(matrices, where: str) -> None:
    """matrices: (n, 4, 4) rigid transforms."""
    check_finite(matrices, where, "the pose matrix")
    turns = matrices[:, :3, :3].astype(np.float64)
    errors = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    bad = np.flatnonzero((errors > 1e-2) | (np.linalg.det(turns) < 0))
    if len(bad):
        raise ValueError(
            f"{where}: the upper left 3x3 of pose {bad[0]} is not a rotation; give rigid 4x4 "
            "transforms without scale or mirroring"
        )


def check_speed(times, positions, where: str) -> None:
    """times: (n,) microseconds; positions: (n, 3) metres, of the vehicle."""
    steps = np.linalg.norm(np.diff(positions.astype(np.float64), axis=0), axis=1)
    speed = float(np.median(steps / (np.diff(times) / 1e6)))
    if speed > SPEED:
        raise ValueError(
            f"{where}: the vehicle moves at {speed:.4g} m/s (limit {SPEED:g}); write positions in "
            "metres and timestamps in microseconds"
        )


def check_sizes(sizes, where: str) -> None:
    """sizes: (n, 3) metres, one row per track or observation."""
    if (sizes < 0).any():
        raise ValueError(
            f"{where}: a size is negative ({sizes.min():.4g}); give length, width, height"
        )
    typical = float(np.median(sizes.max(axis=1)))
    if typical > BIGGEST:
        raise ValueError(
            f"{where}: objects are {typical:.4g} m long (median; limit {BIGGEST:g}); write metres"
        )


def check_mounting(position, where: str) -> None:
    """position: (3,) metres, of a camera on the vehicle."""
    distance = float(np.abs(position).max())
    if not distance <= FAR:  # also NaN
        raise ValueError(
            f"{where}: the camera is {distance:.4g} m off the vehicle (limit {FAR:g}); write metres"
        )


def check_overlap(times, reference, slack_us: int, where: str, what: str) -> None:
    """times: (n,) must touch the range of reference: (m,), both microseconds, and stay near."""
    if times.max() < reference[0] - slack_us or times.min() > reference[-1] + slack_us:
        raise ValueError(
            f"{where}: {what} from {times.min()} to {times.max()} us lie outside the poses' "
            f"{reference[0]} to {reference[-1]}; use microseconds of one clock for both"
        )
    middle, reach = (float(reference[-1]) + x * float(reference[0]) for x in (1, -1))
    stray = np.flatnonzero(np.abs(times - middle / 2) > reach / 2 + LONGEST * 1e6)
    if len(stray):
        raise ValueError(
            f"{where}: {len(stray)} of {len(times)} {what} are over {LONGEST:g} s away from the "
            f"poses (first: row {stray[0]}, {times[stray[0]]} us); remove or repair them"
        )


def is_usable(numbers) -> bool:
    """Whether all coordinates of a map element are numbers, and not huge ones."""
    return bool((np.abs(numbers) < HUGE).all())


def is_unsteady(positions) -> bool:
    """Whether float32 positions (n, 3) are too coarse: the world's origin is too far away."""
    return bool(np.abs(positions).max() > UNSTEADY)
