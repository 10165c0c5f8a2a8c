"""Reader of the ClipGT format: one parquet table per kind of annotation, in one folder.

`{clip}.calibration_estimate.parquet` and `{clip}.egomotion_estimate.parquet` are required. The
files' world is forward-left-up; it becomes right-down-forward on reading, as upstream has it.
"""

import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from jaxvid.scenario import plausible
from jaxvid.scenario.axes import to_rdf, vehicle_to_rdf
from jaxvid.scenario.clipgt_map import read_map
from jaxvid.scenario.clipgt_tracks import read_tracks
from jaxvid.scenario.columns import Columns
from jaxvid.scenario.interpolation import interpolate_poses
from jaxvid.scenario.notes import Notes, listing
from jaxvid.scenario.rig import camera_model, camera_to_rig, read_rig
from jaxvid.scenario.scene import Scene, SceneCamera
from jaxvid.scenario.selection import choose_cameras, choose_clip, current_names

REQUIRED = ("calibration_estimate", "egomotion_estimate")
OPTIONAL = (
    *("obstacle", "lane_line", "road_boundary", "wait_line", "pole", "crosswalk"),
    *("road_marking", "traffic_light", "traffic_sign"),
)
FPS = 30.0


def is_clipgt(folder: Path) -> bool:
    """Whether any required table is there."""
    return any(_clips_with(folder, table) for table in REQUIRED)


def read_clipgt(folder: Path, clip_id=None, camera_names=None, fps: float | None = None) -> Scene:
    """Reads and checks a folder of parquet tables; see `load.load_scene`.

    fps: frames per second of the even grid of frame times (default 30); not with a file of frame
      times, `{clip}.camera_front_wide_120fov.json`.
    """
    notes = Notes()
    clip = find_clip(folder, clip_id)
    tables = {t: folder / f"{clip}.{t}.parquet" for t in OPTIONAL}
    for table, path in tables.items():
        if not path.is_file():
            notes.count("missing optional tables", name=table)
    times, positions, quaternions = read_poses(folder / f"{clip}.egomotion_estimate.parquet", notes)
    frame_times = frame_times_of(folder, clip, times, fps, notes)
    ego = interpolate_poses(times, positions, quaternions, frame_times)
    calibration = folder / f"{clip}.calibration_estimate.parquet"
    cameras, present = read_cameras(calibration, camera_names, ego, notes)
    elements = read_map(folder, clip, len(ego), notes)
    tracks = read_tracks(tables["obstacle"], times, notes)
    return Scene(
        id=clip,
        format="clipgt",
        world="rdf",
        fps=fps or FPS,
        timestamps=frame_times.astype(np.int64),  # truncates, as upstream
        ego_to_world=ego,
        pose_times=times,
        cameras=cameras,
        cameras_present=present,
        tracks=tracks,
        **elements,
        **notes.fields(),
    )


def find_clip(folder: Path, clip_id: str | None = None) -> str:
    """The clip named, or the one whose required tables are in the folder.

    A clip named as the folder goes first. Raises ValueError if there is none or a choice.
    """
    found = [_clips_with(folder, table) for table in REQUIRED]
    clips = [clip for clip in found[0] if clip in found[1]]
    if clip_id is None and folder.resolve().name in clips:
        return folder.resolve().name
    if clips or clip_id is not None:
        return choose_clip(clip_id, clips, folder)
    for table, names in zip(REQUIRED, found, strict=True):
        if not names:
            raise ValueError(f"{folder} lacks the required table CLIP.{table}.parquet")
    raise ValueError(
        f"{folder} has no clip with both required tables: {REQUIRED[0]} of {listing(found[0])}, "
        f"{REQUIRED[1]} of {listing(found[1])}"
    )


def _clips_with(folder: Path, table: str) -> list[str]:
    suffix = f".{table}.parquet"
    names = (path.name for path in folder.glob(f"[!.]*{suffix}"))  # macOS leaves ._CLIP
    return sorted(name.removesuffix(suffix) for name in names)


def read_poses(path: Path, notes: Notes):
    """Times (k,) int64 us, positions (k, 3) and quaternions (k, 4) float32, right-down-forward."""
    table = Columns(path)
    times = table.integers("key.timestamp_micros")
    where = str(path)
    plausible.check_pose_times(times, where)
    positions = table.vectors("egomotion_estimate.location")
    turns = table.vectors("egomotion_estimate.orientation", "xyzw")
    plausible.check_finite(positions, where, "location")
    plausible.check_finite(turns, where, "orientation")
    plausible.check_quaternions(turns, where)
    plausible.check_speed(times, positions, where)
    if plausible.is_unsteady(positions):
        notes.count(
            "poses over 100 km from the origin, where float32 is coarse (subtract the first one)"
        )
    return times, to_rdf(positions), vehicle_to_rdf(Rotation.from_quat(turns))


def frame_times_of(folder: Path, clip: str, times, fps: float | None, notes: Notes) -> np.ndarray:
    """(t,) float64 microseconds: an even grid over the poses, or those of the camera's own file."""
    sidecar = folder / f"{clip}.camera_front_wide_120fov.json"
    if sidecar.is_file():
        recorded = _read_sidecar(sidecar, notes)
        if recorded is not None:
            if fps not in (None, FPS):
                raise ValueError(f"{fps:g} fps, but {sidecar} says when frames are; remove one")
            plausible.check_increasing(recorded, str(sidecar))
            plausible.check_overlap(recorded, times, 0, str(sidecar), "frame times")
            return recorded.astype(np.float64)
    return even_times(times[0], times[-1], fps or FPS)


def even_times(first: int, last: int, fps: float) -> np.ndarray:
    """(t,) float64 microseconds from `first`, at most `last`.

    Rounding may cost a frame, as upstream: 4.1 s at 30 fps are 123 frames.
    """
    count = int((last - first) / 1e6 * fps) + 1
    return first + (np.arange(count) / fps) * 1e6


def _read_sidecar(path: Path, notes: Notes) -> np.ndarray | None:
    try:
        times = [entry["timestamp"] for entry in json.loads(path.read_bytes())]
        if times and all(type(time) is int for time in times):
            return np.array(times, np.int64)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        pass
    notes.count("unreadable file of frame times, frames are evenly spaced", name=path.name)
    return None


def read_cameras(path: Path, wanted, ego, notes: Notes):
    """The cameras asked for, with their poses (t, 4, 4), and the names of all there are."""
    table = Columns(path)
    texts = table.words("calibration_estimate.rig_json")
    if not texts:
        raise ValueError(f"{path} has no rows; the first one must hold the rig")
    sensors = read_rig(texts[0], str(path))
    names = current_names(sensors)
    cameras = {}
    for name in choose_cameras(wanted, names, str(path), notes):
        where = f"{path}: {names[name]}"
        sensor = sensors[names[name]]
        to_world = ego @ camera_to_rig(sensor, where)
        cameras[name] = SceneCamera(name, camera_model(sensor, where), to_world)
    return cameras, tuple(names)
