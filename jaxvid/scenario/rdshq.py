"""Reader of the RDS-HQ format (Cosmos-Drive-Dreams): one tar per kind of annotation and clip.

`{folder}/{attribute}/{clip}.tar`; the world is forward-left-up and stays so; 30 frames per second.
"""

import re
from pathlib import Path

import numpy as np

from jaxvid.scenario import plausible
from jaxvid.scenario.axes import RDF_FROM_FLU
from jaxvid.scenario.camera import make_camera
from jaxvid.scenario.lenses import DEFAULT_LENSES
from jaxvid.scenario.notes import Notes
from jaxvid.scenario.rdshq_map import read_map
from jaxvid.scenario.rdshq_tar import FPS, Sample, frame_time
from jaxvid.scenario.rdshq_tracks import read_tracks
from jaxvid.scenario.rig import underscored
from jaxvid.scenario.scene import Scene, SceneCamera
from jaxvid.scenario.selection import choose_cameras, choose_clip, current_names

POSES = ("pose", "vehicle_pose")
CONTENT = (
    "all_object_info",
    "3d_lanelines",
    "3d_lanes",
    "3d_road_boundaries",
    "ftheta_intrinsic",
)


def is_rdshq(folder: Path) -> bool:
    """Whether the folder has poses and at least one kind of annotation."""
    return any((folder / p).is_dir() for p in POSES) and any((folder / c).is_dir() for c in CONTENT)


def read_rdshq(folder: Path, clip_id=None, camera_names=None, fps: float | None = None) -> Scene:
    """Reads and checks one clip; see `load.load_scene`. fps: must be 30 or None."""
    if fps not in (None, FPS):
        raise ValueError(f"{fps:g} fps: RDS-HQ scenes are annotated at 30 frames per second")
    notes = Notes()
    clip = find_clip(folder, clip_id)

    def opened(attribute: str, optional: bool = True) -> Sample | None:
        path = folder / attribute / f"{clip}.tar"
        if path.is_file():
            return Sample(path)
        if optional:
            notes.count("missing optional parts", name=attribute)
        return None

    numbers, ego, cameras, present = _read_rig(opened, folder, clip, camera_names, notes)
    times = np.array([frame_time(number) for number in numbers], np.int64)
    tracks = read_tracks(opened("all_object_info"), times, notes)
    elements = read_map(opened, notes)
    return Scene(
        id=clip,
        format="rdshq",
        world="flu",
        fps=FPS,
        timestamps=times,
        ego_to_world=ego,
        pose_times=times,
        cameras=cameras,
        cameras_present=present,
        tracks=tracks,
        **elements,
        **notes.fields(),
    )


def find_clip(folder: Path, clip_id: str | None = None) -> str:
    """The clip named, or the only one; raises ValueError if there is none or a choice."""
    clips: list[str] = []
    for part in POSES:
        clips = clips or sorted(path.stem for path in (folder / part).glob("[!.]*.tar"))
    if not clips:
        raise ValueError(f"{folder} has no tar files in pose/ or vehicle_pose/")
    return choose_clip(clip_id, clips, folder)


def _read_rig(opened, folder: Path, clip: str, wanted, notes: Notes):
    """Frame numbers, ego poses (t, 4, 4) float32, cameras, and the names of all cameras."""
    poses = opened("pose", optional=False)
    if poses is None:
        raise ValueError(f"{folder} lacks pose/{clip}.tar, the poses of the cameras")
    found = (re.fullmatch(r"[^.]*\.(pose\.(.+)\.npy)", field) for field in sorted(poses.fields))
    files = {underscored(match[2]): match[1] for match in found if match}
    names = current_names(files)
    chosen = choose_cameras(wanted, names, str(poses.path), notes)
    entries = {name: poses.frames(files[names[name]]) for name in chosen}
    lenses = opened("ftheta_intrinsic", optional=False)
    models = {name: _lens(name, names[name], lenses, notes) for name in chosen}
    vehicle = opened("vehicle_pose", optional=False)
    if vehicle is None:
        notes.count("scene without vehicle poses, cameras follow their own")
        numbers, ego, to_world = _from_cameras(poses, entries)
    else:
        numbers, ego, to_world = _from_vehicle(vehicle, poses, entries)
    cameras = {name: SceneCamera(name, models[name], to_world[name]) for name in chosen}
    return numbers, ego, cameras, tuple(names)


def _from_vehicle(vehicle: Sample, poses: Sample, entries):
    """Each camera keeps the place on the vehicle that it has in its first entry."""
    fields = vehicle.frames("vehicle_pose.npy")
    ego = _matrices(vehicle, list(fields.values()))
    rows = {number: row for row, number in enumerate(fields)}
    to_world = {}
    for name, frames in entries.items():
        first = next((number for number in frames if number in rows), None)
        if first is None:
            raise ValueError(f"{poses.path}: no pose of {name} is at a frame of {vehicle.path}")
        pose = _matrices(poses, [frames[first]], least=1)[0]
        to_ego = np.linalg.inv(ego[rows[first]].astype(np.float64)) @ pose
        plausible.check_mounting(to_ego[:3, 3], f"{poses.path}: {name}")
        to_world[name] = ego @ to_ego.astype(np.float32)
    return list(fields), ego, to_world


def _from_cameras(poses: Sample, entries):
    """Frames are those of the first camera; the vehicle's pose is its pose, axes changed."""
    (first, frames), *others = entries.items()
    for name, theirs in others:
        if theirs.keys() != frames.keys():
            raise ValueError(
                f"{poses.path}: {name} has poses at other frames than {first}; without "
                "vehicle_pose all cameras need the same frames"
            )
    to_world = {name: _matrices(poses, list(e.values())) for name, e in entries.items()}
    axes = np.eye(4, dtype=np.float32)
    axes[:3, :3] = RDF_FROM_FLU
    return list(frames), to_world[first] @ axes, to_world


def _matrices(sample: Sample, fields: list[str], least: int = 2) -> np.ndarray:
    if len(fields) < least:
        raise ValueError(f"{sample.path}: {len(fields)} poses; at least {least} are needed")
    matrices = np.stack([sample.array(field, (4, 4)) for field in fields])
    plausible.check_rotations(matrices, str(sample.path))
    return matrices.astype(np.float32)


def _lens(name: str, name_in_file: str, lenses: Sample | None, notes: Notes):
    """The camera's own numbers: cx, cy, w, h, c0..c5, 1 if backward[, c, d, e], or default ones."""
    fields = {underscored(f): f for f in lenses.fields} if lenses else {}
    field = fields.get(f"ftheta_intrinsic.{name_in_file}.npy")
    where = f"{lenses.path}: {field}" if field else f"default lens of {name}"
    if field:
        numbers = lenses.array(field)
        if numbers.shape not in ((11,), (14,)):
            raise ValueError(f"{where} has shape {numbers.shape}; it must be (11,) or (14,)")
    elif name in DEFAULT_LENSES:
        notes.count("cameras with the default lens, no intrinsics", name=name)
        numbers = np.array(DEFAULT_LENSES[name])
    else:
        raise ValueError(f"no ftheta_intrinsic of {name}, and no default lens for that name")
    c, d, e = numbers[11:] if len(numbers) == 14 else (1, 0, 0)
    try:
        size = np.trunc(numbers[2:4])
        return make_camera(numbers[:2], size, numbers[4:10], bool(numbers[10]), ((c, d), (e, 1)))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
