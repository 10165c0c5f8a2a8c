"""What a scene holds, in lines for people: the answer to --check."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from jaxvid.scenario.notes import listing
from jaxvid.scenario.palette import DEPTH_MAX
from jaxvid.scenario.scene import Scene, SceneCamera, Track
from jaxvid.scenario.visibility import GLANCE, seen_tracks

LONG_GAP = 1.0  # seconds without an observation of an object
ELEMENTS = {
    "lane_lines": "lane lines",
    "road_boundaries": "road boundaries",
    "wait_lines": "wait lines",
    "poles": "poles",
    "crosswalks": "crosswalks",
    "road_markings": "road markings",
    "traffic_lights": "traffic lights",
    "traffic_signs": "traffic signs",
}


def describe(scene: Scene, left_out: Sequence[str] = ()) -> list[str]:
    """Lines on cameras, frames, objects, map, gaps, and on what will not be drawn and why.

    left_out: lines of `draw.Renderer.warnings`, which depend on the look.
    """
    return [
        *_drive(scene),
        "cameras:",
        *(f"  {_camera(camera)}" for camera in scene.cameras.values()),
        *(f"  {name}: there, not asked for" for name in _others(scene)),
        f"tracks: {len(scene.tracks)}",
        *(f"  {line}" for line in _tracks(scene.tracks)),
        "map:",
        *(f"  {line}" for line in _elements(scene)),
        *_section("gaps:", gaps(scene)),
        *_section("will not be drawn:", [*undrawn(scene), *left_out]),
        *_section("warnings:", scene.warnings),
    ]


def _section(title: str, lines) -> list[str]:
    lines = list(lines)
    return [title, *(f"  {line}" for line in lines)] if lines else [f"{title} none"]


def _drive(scene: Scene) -> list[str]:
    seconds = scene.frames / scene.fps
    steps = np.diff(scene.ego_to_world[:, :3, 3].astype(np.float64), axis=0)
    metres = float(np.linalg.norm(steps, axis=1).sum())
    span = _seconds(scene.timestamps[-1] - scene.timestamps[0])
    speed = f", {metres / span:.1f} m/s on average" if span else ""
    return [
        f"scene: {scene.id} ({scene.format})",
        f"frames: {scene.frames} at {scene.fps:g} fps, {seconds:.2f} s",
        f"poses: {len(scene.pose_times)}, {metres:.1f} m driven{speed}",
    ]


def _camera(camera: SceneCamera) -> str:
    width, height = camera.model.size
    middle = np.array([[0, height / 2], [width, height / 2]], np.float32)
    rays, valid = camera.model.unproject(middle)
    cosine = np.clip((rays[0] * rays[1]).sum(), -1, 1)
    field = f", {np.degrees(np.arccos(cosine)):.0f} degrees wide" if valid.all() else ""
    return f"{camera.name}: {width}x{height}{field}"


def _others(scene: Scene) -> list[str]:
    return [name for name in scene.cameras_present if name not in scene.cameras]


def _tracks(tracks: Sequence[Track]) -> Iterator[str]:
    for kind in ("Car", "Truck", "Pedestrian", "Cyclist", "Other"):
        own = [track for track in tracks if track.kind == kind]
        if own:
            words = Counter(track.category for track in own)
            listed = ", ".join(f"{word} {n}" for word, n in sorted(words.items()))
            parked = sum(not track.moving for track in own)
            still = f"; {parked} static" if parked else ""
            yield f"{kind}: {len(own)} ({listed}{still})"


def _elements(scene: Scene) -> Iterator[str]:
    for field, name in ELEMENTS.items():
        own = getattr(scene, field)
        styles = Counter(line.style for line in own) if field == "lane_lines" else {}
        listed = ", ".join(f"{style} {n}" for style, n in sorted(styles.items()))
        yield f"{name}: {len(own)}" + (f" ({listed})" if listed else "")


def gaps(scene: Scene) -> Iterator[str]:
    """Where data are missing in between: poses, objects, frames outside the recorded poses."""
    steps = np.diff(scene.pose_times)
    long = np.flatnonzero(steps > 3 * np.median(steps)) if len(steps) else []
    for i in long:
        at = _seconds(scene.pose_times[i] - scene.timestamps[0])
        yield f"no pose for {_seconds(steps[i]):.2f} s from {at:.2f} s on; interpolated"
    first, last = scene.pose_times[0], scene.pose_times[-1]
    outside = int(((scene.timestamps < first) | (scene.timestamps > last)).sum())
    if outside:
        yield f"{outside} frames lie before the first or after the last pose; extrapolated"
    holes = [
        float(_seconds(np.diff(track.timestamps).max()))
        for track in scene.tracks
        if len(track.timestamps) > 1
    ]
    wide = [hole for hole in holes if hole > LONG_GAP]
    if wide:
        yield (
            f"{len(wide)} tracks are not observed for more than {LONG_GAP:g} s "
            f"(longest {max(wide):.2f} s); interpolated"
        )


def undrawn(scene: Scene) -> Iterator[str]:
    """What leaves no trace in any video, with the reason."""
    for what, number in scene.undrawn.items():
        yield f"{what}: {number}, for which the videos have no colour"
    if not scene.cameras:
        return
    seen = seen_tracks(scene)
    missed = [track for track in scene.tracks if track.id not in seen]
    if missed:
        words = listing((f"{track.id} {track.category}" for track in missed), 5)
        yield (
            f"{len(missed)} tracks: in no camera's view within {DEPTH_MAX:g} m, looked at every "
            f"{GLANCE:g} s ({words})"
        )


def _seconds(microseconds) -> float:
    return float(microseconds) / 1e6
