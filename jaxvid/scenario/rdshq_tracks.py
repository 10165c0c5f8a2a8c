"""Objects of the RDS-HQ format: `all_object_info`, which may exist for some frames only."""

import numpy as np
from scipy.spatial.transform import Rotation

from jaxvid.scenario import plausible
from jaxvid.scenario.categories import kind_of
from jaxvid.scenario.notes import Notes
from jaxvid.scenario.rdshq_tar import Sample, frame_time
from jaxvid.scenario.scene import Track

DEFAULT_SIZE = [2.0, 2.0, 2.0]
ALIGNED = 0.7  # cosine between a static object's heading and the mean heading


def read_tracks(sample: Sample | None, pose_times, notes: Notes) -> tuple[Track, ...]:
    """The tracks of a clip, ascending in id as a string.

    pose_times: (t,) int64 microseconds, to check that objects and poses belong together.
    Raises ValueError for entries that cannot be read, NaN positions and other units.
    """
    if sample is None:
        return ()
    fields = sample.frames("all_object_info.json")
    if not fields:
        raise ValueError(f"{sample.path} holds no FRAME.all_object_info.json; leave the file out")
    entries: dict[str, list[tuple[int, dict]]] = {}
    for number, field in fields.items():
        for track, entry in sample.json(field).items():
            entries.setdefault(track, []).append((frame_time(number), entry))
    found = [_track(t, entries[t], f"{sample.path}: {t}", notes) for t in sorted(entries)]
    tracks = tuple(track for track in found if track is not None)
    if tracks:
        longest = np.stack([track.sizes.max(axis=0) for track in tracks])
        plausible.check_sizes(longest, str(sample.path))
        times = np.concatenate([track.timestamps for track in tracks])
        plausible.check_overlap(times, pose_times, 0, str(sample.path), "objects")
    return tracks


def _track(name: str, entries, where: str, notes: Notes) -> Track | None:
    """One track from (time, entry) pairs in order of time, or None, counted."""
    if len(entries) < 2:
        notes.count("tracks left out, fewer than two observations", name=name)
        return None
    try:
        poses = np.array([entry["object_to_world"] for _, entry in entries], np.float64)
        sizes = _sizes([entry.get("object_lwh") for _, entry in entries])
        moving = bool(entries[0][1].get("object_is_moving", True))
        category = str(entries[0][1]["object_type"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"{where}: no object_to_world, object_lwh, object_type ({reason})"
        ) from error
    if poses.shape[1:] != (4, 4):
        raise ValueError(f"{where}: object_to_world has shape {poses.shape[1:]}; it must be (4, 4)")
    plausible.check_rotations(poses, where)
    plausible.check_finite(sizes, where, "object_lwh")
    if not moving:
        poses[:], sizes[:] = average_pose(poses), sizes.mean(axis=0)
    return Track(
        id=name,
        kind=kind_of(category, notes, capitalised=True),
        category=category,
        timestamps=np.array([time for time, _ in entries], np.int64),
        centers=poses[:, :3, 3].astype(np.float32),
        rotations=Rotation.from_matrix(poses[:, :3, :3]).as_quat().astype(np.float32),
        sizes=sizes.astype(np.float32),
        moving=moving,
        extrapolation_us=0,
    )


def average_pose(poses) -> np.ndarray:
    """(4, 4): where a static object is, from its poses (n, 4, 4).

    Poses turned away from the mean heading are left out, as upstream does (`rdshq_loader.py`);
    where headings cancel out, the first pose is taken.
    """
    headings = poses[:, :3, 0]
    mean = headings.mean(axis=0)
    if np.linalg.norm(mean) < 1e-6:
        return poses[0]
    kept = poses[headings @ _unit(mean) > ALIGNED]
    if not len(kept):
        return poses[0]
    front = _unit(kept[:, :3, 0].mean(axis=0))
    left = np.cross(_unit(kept[:, :3, 2].mean(axis=0)), front)
    average = np.eye(4)
    average[:3, :3] = np.stack([front, left, np.cross(front, left)], axis=1)
    average[:3, 3] = kept[:, :3, 3].mean(axis=0)
    return average


def _sizes(given) -> np.ndarray:
    """(n, 3); a missing size is the one before it."""
    sizes, last = [], DEFAULT_SIZE
    for size in given:
        last = last if size is None else size
        sizes.append(last)
    return np.array(sizes, np.float64).reshape(-1, 3)


def _unit(vector):
    return vector / np.linalg.norm(vector)
