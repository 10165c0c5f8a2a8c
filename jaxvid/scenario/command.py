"""The command line of scripts/render_scenario.py."""

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxvid.core.files import check_writable
from jaxvid.core.program import Parser
from jaxvid.core.video import write_png
from jaxvid.runs.progress import Progress
from jaxvid.scenario import check, multiview, overlay, render, workers
from jaxvid.scenario.draw import Renderer
from jaxvid.scenario.load import load_scene
from jaxvid.scenario.scene import CAMERAS, Scene

FAILED = 3  # exit code: some cameras failed, the others are done


def parser() -> Parser:
    made = Parser(
        prog="render_scenario.py",
        description="Turns scene annotations into one control video per camera.",
    )
    add = made.add_argument
    add("--input", required=True, metavar="DIR", help="folder of a scene, ClipGT or RDS-HQ")
    add("--output", metavar="DIR", help="folder for ftheta_CAMERA/CLIP.mp4 and the rest")
    add("--clip", help="clip id, where the folder holds several")
    add("--cameras", default="all", help='names with colons or underscores, by comma, or "all"')
    add("--resolution", default="1280x720", metavar="WIDTHxHEIGHT", help="default 1280x720")
    add("--fps", type=float, help="frames per second; default 30")
    add("--frames", default=":", metavar="START:STOP", help="frames to render; default all")
    add("--look", default="documented", help="documented (default) or upstream, see README")
    add("--workers", type=int, help="processes; default one per processor and camera")
    add("--check", action="store_true", help="say what the scene holds and render nothing")
    add("--overlay", metavar="VIDEOS", help="folder of camera footage to blend the control over")
    add("--alpha", type=float, default=0.6, help="share of the control in overlays; default 0.6")
    add("--sheet_frame", type=int, help="frame of the contact sheet; default the middle one")
    add("--prompt", default="", help="text for the multiview spec")
    add("--overwrite", action="store_true", help="render finished cameras again")
    return made


def main(argv: Sequence[str]) -> int:
    """Runs the command line; raises ValueError for what a user can mend."""
    flags = parser().parse_args(argv)
    settings = _settings(flags)
    scene = load_scene(flags.input, flags.clip, flags.cameras, flags.fps)
    frames = settings.frames_of(scene)
    check_cameras(scene, settings)
    left_out = Renderer(scene, settings.look, settings.height, settings.width).warnings
    if flags.check:
        print("\n".join(check.describe(scene, left_out)))
        return 0
    for warning in (*scene.warnings, *left_out):
        print(f"warning: {warning}")
    sheet_frame = _sheet_frame(flags.sheet_frame, frames)
    footage = overlay.find_footage(flags.overlay, scene.id, scene.cameras) if flags.overlay else {}
    output = Path(flags.output).expanduser().resolve()
    job = render.Job(scene, settings, output, render.source_hash(flags.input, scene.id))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with render.sole_user(job):
        failed = run(job, _workers(flags.workers, len(scene.cameras)), flags.overwrite)
        names = dict.fromkeys((*CAMERAS, *scene.cameras))  # also those of an earlier run
        done = {name: job.video(name) for name in names if job.is_done(name)}
        if done:
            write_png(output / f"{scene.id}.png", multiview.sheet_of_videos(done, sheet_frame))
            print(f"contact sheet: {output / f'{scene.id}.png'}")
            _write_spec(job, done, flags.prompt)
        blended = _write_overlays(job, done, footage, flags.alpha)
    return 0 if blended and not failed else FAILED


def run(job: render.Job, processes: int, overwrite: bool = False) -> dict[str, str]:
    """Renders what is not done yet; returns the errors of failed cameras by name."""
    scene, settings = job.scene, job.settings
    frames = len(settings.frames_of(scene))
    todo = [name for name in by_cost(scene) if overwrite or not job.is_done(name)]
    processes = max(min(processes, len(todo)), 1)
    print(
        f"{scene.id}: {len(scene.cameras)} cameras of {frames} frames at {settings.width}x"
        f"{settings.height}, {scene.fps:g} fps, {settings.look} look; "
        f"{len(scene.cameras) - len(todo)} already done, {processes} processes",
        flush=True,
    )
    drawn, failed, ended = 0, {}, 0
    with Progress(len(todo) * frames, lambda: drawn) as progress:
        for event in workers.render_all(job, todo, processes):
            if event.kind == "frame":
                if not drawn:
                    progress.begin()
                progress.update(f"frames; {ended} of {len(todo)} cameras")
                drawn += 1
                continue
            ended += 1
            if event.kind == "failed":
                failed[event.camera] = event.content
                progress.log(f"failed: {event.camera}: {event.content}")
                continue
            seconds = event.content["seconds"]
            padded = ", padded to even sizes" if event.content["padded"] else ""
            progress.log(f"{job.video(event.camera)} ({seconds:.1f} s{padded})")
    print(f"{len(scene.cameras) - len(failed)} cameras done, {len(failed)} failed")
    return failed


def check_cameras(scene: Scene, settings: render.RenderSettings) -> None:
    """Raises ValueError for a camera that makes no sense at the size of the videos."""
    for name, camera in scene.cameras.items():
        try:
            camera.model.rescale(settings.height, settings.width, settings.look == "upstream")
        except ValueError as error:
            size = f"{settings.width}x{settings.height}"
            raise ValueError(f"{name} does not hold at {size}: {error}") from None


def by_cost(scene: Scene) -> list[str]:
    """Cameras from the widest angle to the narrowest: long ones first keeps all processes busy."""
    return sorted(scene.cameras, key=lambda name: -float(scene.cameras[name].model.max_angle))


def _settings(flags: argparse.Namespace) -> render.RenderSettings:
    """Raises ValueError for every flag that is wrong whatever the scene holds."""
    size = re.fullmatch(r"(\d+)x(\d+)", flags.resolution)
    if not size:
        raise ValueError(f"--resolution={flags.resolution}: write WIDTHxHEIGHT, e.g. 1280x720")
    span = re.fullmatch(r"(\d*):(\d*)", flags.frames)
    if not span:
        raise ValueError(f"--frames={flags.frames}: write START:STOP, e.g. 0:90")
    if not flags.check:
        if not flags.output:
            raise ValueError("no folder for the videos: give --output=DIR, or --check")
        check_writable(flags.output, "--output")
    if not 0 < flags.alpha <= 1:
        raise ValueError(f"--alpha={flags.alpha} is outside (0, 1]")
    if flags.workers is not None and flags.workers < 1:
        raise ValueError(f"--workers={flags.workers}: give 1 or more")
    width, height = map(int, size.groups())
    start, stop = int(span[1] or 0), int(span[2]) if span[2] else None
    return render.RenderSettings(flags.look, height, width, start, stop)


def _workers(wanted: int | None, cameras: int) -> int:
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        processors = os.cpu_count() or 1
    return min(wanted or processors, cameras)


def _sheet_frame(wanted: int | None, frames: range) -> int:
    """Index into the videos, which begin with the first of `frames`."""
    wanted = frames[len(frames) // 2] if wanted is None else wanted
    if wanted not in frames:
        raise ValueError(
            f"--sheet_frame={wanted} is not rendered; use one of {frames.start}..{frames.stop - 1}"
        )
    return wanted - frames.start


def _write_overlays(job: render.Job, done, footage, alpha: float) -> bool:
    """Makes all that can be made; returns whether none failed."""
    missing = [name for name in job.scene.cameras if name not in footage]
    if footage and missing:
        print(f"warning: --overlay has no footage of {', '.join(missing)}")
    failed = 0
    for name in (name for name in footage if name in done):
        target = job.output / "overlay" / job.video(name).relative_to(job.output)
        try:
            count = overlay.write_overlay(
                done[name], footage[name], target, job.settings.start, alpha
            )
            print(f"{target} ({count} frames)", flush=True)
        except (ValueError, OSError) as error:
            failed += 1
            print(f"failed: overlay of {name}: {' '.join(str(error).split())}", flush=True)
    return not failed


def _write_spec(job: render.Job, done, prompt: str) -> None:
    videos = {name: str(path.relative_to(job.output)) for name, path in done.items()}
    frames = len(job.settings.frames_of(job.scene))
    spec, notes = multiview.multiview_spec(job.scene.id, videos, job.scene.fps, frames, prompt)
    path = job.output / f"{job.scene.id}.json"
    render.write_json(path, spec)
    for note in notes:
        print(f"note: {note}")
    print(f"multiview spec: {path}")
