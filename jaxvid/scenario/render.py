"""From a scene to one control video per camera, in the folders that batch runs read.

`{output}/ftheta_{camera}/{clip}.mp4` is a finished video, the `.json` beside it says how it was
made. Everything unfinished lies in `{output}/.unfinished-{clip}`, which only one run can use.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from jaxvid.core.files import TEMPORARY_PREFIX, atomic_path, locked, sha256
from jaxvid.core.video import VideoWriter, probe
from jaxvid.scenario.draw import Renderer
from jaxvid.scenario.palette import Look, check_look
from jaxvid.scenario.scene import Scene
from jaxvid.scenario.tables import FRONT

SMALLEST, LARGEST = 16, 8192  # pixels of a side
VERSION = 1  # of the drawing; a new number makes finished videos again


@dataclasses.dataclass(frozen=True)
class RenderSettings:
    """What decides how videos look; frames start, ..., stop - 1 (None: to the end)."""

    look: Look = "documented"
    height: int = 720
    width: int = 1280
    start: int = 0
    stop: int | None = None

    def __post_init__(self):
        check_look(self.look)
        for name, size in (("width", self.width), ("height", self.height)):
            if not SMALLEST <= size <= LARGEST:
                raise ValueError(f"{name}={size} is outside {SMALLEST}..{LARGEST} pixels")

    def frames_of(self, scene: Scene) -> range:
        """Raises ValueError if the scene lacks some of them."""
        stop = scene.frames if self.stop is None else self.stop
        if not 0 <= self.start < stop <= scene.frames:
            raise ValueError(
                f"frames {self.start}:{stop} were asked for, but {scene.id} has {scene.frames}; "
                f"use a range within 0:{scene.frames}"
            )
        return range(self.start, stop)


@dataclasses.dataclass(frozen=True)
class Job:
    """All that a worker process needs. output: folder; source: hash of the scene's files."""

    scene: Scene
    settings: RenderSettings
    output: Path
    source: str

    def video(self, camera: str) -> Path:
        return self.output / f"ftheta_{camera}" / f"{self.scene.id}.mp4"

    def record(self, camera: str) -> Path:
        return self.video(camera).with_suffix(".json")

    @property
    def workshop(self) -> Path:
        return self.output / f"{TEMPORARY_PREFIX}{self.scene.id}"

    def fingerprint(self, camera: str) -> str:
        """Changes when the video would."""
        frames = self.settings.frames_of(self.scene)
        size = self.settings.look, self.settings.height, self.settings.width
        parts = (VERSION, self.source, camera, self.scene.fps, frames, size)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def is_done(self, camera: str) -> bool:
        """Whether the video is there, whole, and as these settings make it."""
        try:
            record = dict(json.loads(self.record(camera).read_bytes()))
            whole = probe(self.video(camera)).frames == len(self.settings.frames_of(self.scene))
        except (OSError, ValueError, TypeError):
            return False
        return whole and record.get("fingerprint") == self.fingerprint(camera)


def source_hash(folder: str | os.PathLike, clip: str) -> str:
    """Hash of the input files of a clip, by name; videos that lie among them do not count."""
    folder = Path(folder).expanduser()
    names = [path for path in folder.iterdir() if path.name.startswith(f"{clip}.")]
    files = [p for p in names if p.suffix == ".parquet" or p.name == f"{clip}.{FRONT}.json"]
    files += [path / f"{clip}.tar" for path in folder.iterdir()]
    found = sorted(path for path in files if path.is_file())
    parts = [(str(path.relative_to(folder)), sha256(path)) for path in found]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def render_frames(scene: Scene, camera: str, settings: RenderSettings) -> Iterator[np.ndarray]:
    """Yields uint8 (h, w, 3) control frames of one camera, for use without files."""
    renderer = Renderer(scene, settings.look, settings.height, settings.width)
    for index in settings.frames_of(scene):
        yield renderer.frame(camera, index)


def render_camera(job: Job, renderer: Renderer, camera: str, progress: Callable[[], None]) -> dict:
    """Writes one video and its record; progress: called after each frame.

    Returns the record. After an error or a kill the video is absent or the former one.
    """
    begin, frames = time.monotonic(), job.settings.frames_of(job.scene)
    unfinished = job.workshop / f"{camera}.mp4"
    with VideoWriter(unfinished, job.scene.fps) as writer:
        for index in frames:
            writer.write(renderer.frame(camera, index)[None])
            progress()
    target = job.video(camera)
    target.parent.mkdir(parents=True, exist_ok=True)
    job.record(camera).unlink(missing_ok=True)  # it tells of the former video
    os.replace(unfinished, target)
    record = {
        "status": "done",
        "fingerprint": job.fingerprint(camera),
        "scene": job.scene.id,
        "camera": camera,
        **dataclasses.asdict(job.settings),
        "frames": len(frames),
        "fps": job.scene.fps,
        "padded": writer.padded,
        "seconds": round(time.monotonic() - begin, 2),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    write_json(job.record(camera), record)
    return record


def write_json(path: Path, content: dict) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def sole_user(job: Job) -> Iterator[None]:
    """Makes the workshop, free of what a killed run left, and removes it at the end.

    Raises ValueError if another run renders this clip into the same folder, as far as the file
    system has locks.
    """
    refusal = (
        f"another process renders {job.scene.id} into {job.output}; wait for it or name "
        "another --output"
    )
    with locked(job.workshop, refusal):
        for left in job.workshop.iterdir():
            left.unlink(missing_ok=True)
        try:
            yield
        finally:
            shutil.rmtree(job.workshop, ignore_errors=True)
