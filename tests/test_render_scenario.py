"""scripts/render_scenario.py: outputs, resume, kills, failures, wrong input."""

import contextlib
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxvid.core import program
from jaxvid.core.video import probe, read_video, write_video
from jaxvid.scenario import command, multiview, render, workers
from jaxvid.scenario.draw import Renderer
from jaxvid.scenario.load import load_scene
from jaxvid.scenario.scene import CAMERAS
from jaxvid.scenario.synthetic import synthetic_scene

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "render_scenario.py"
PAIR = "camera:front:wide:120fov,camera_rear_tele_30fov"  # both spellings
NAMES = ("camera_front_wide_120fov", "camera_rear_tele_30fov")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return synthetic_scene(0, tmp_path_factory.mktemp("scene"), "drive", seconds=0.4)


def arguments(folder, output, *more) -> list[str]:
    fixed = ["--resolution=96x54", f"--cameras={PAIR}", "--workers=1"]
    return [f"--input={folder}", f"--output={output}", *fixed, *map(str, more)]


def files(output) -> dict[str, bytes]:
    paths = sorted(path for path in output.rglob("*") if path.is_file())
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}


def videos(output) -> dict[str, bytes]:
    return {name: data for name, data in files(output).items() if name.endswith(".mp4")}


def test_a_run_leaves_what_batch_runs_read(folder, tmp_path, capsys):
    assert command.main(arguments(folder, tmp_path, "--prompt=A city.")) == 0
    names = [f"ftheta_{name}/drive.{suffix}" for name in NAMES for suffix in ("json", "mp4")]
    assert sorted(files(tmp_path)) == sorted([*names, "drive.json", "drive.png"])
    info = probe(tmp_path / "ftheta_camera_front_wide_120fov" / "drive.mp4")
    assert (info.frames, info.height, info.width, info.fps) == (12, 54, 96, 30)
    spec = json.loads((tmp_path / "drive.json").read_bytes())
    assert spec["name"] == "drive" and spec["prompt"] == "A city." and spec["fps"] == 10
    assert spec["front_wide"]["control_path"] == "ftheta_camera_front_wide_120fov/drive.mp4"
    assert all((tmp_path / spec[v]["control_path"]).is_file() for v in ("front_wide", "rear"))
    lines = capsys.readouterr().out
    assert "2 cameras of 12 frames at 96x54, 30 fps, documented look" in lines
    assert "2 cameras done, 0 failed" in lines and "needs 29 or more" in lines


def test_finished_cameras_are_kept_and_others_made(folder, tmp_path, capsys):
    def run(*more) -> str:
        assert command.main(arguments(folder, tmp_path, "--frames=0:3", *more)) == 0
        return capsys.readouterr().out

    assert "0 already done" in run()
    before = videos(tmp_path)
    assert "2 already done" in run()
    assert "0 already done" in run("--look=upstream")
    assert videos(tmp_path) != before
    assert "0 already done" in run()
    assert videos(tmp_path) == before
    first = tmp_path / "ftheta_camera_rear_tele_30fov" / "drive.mp4"
    first.write_bytes(first.read_bytes()[:2000])
    assert "1 already done" in run()
    record = tmp_path / "ftheta_camera_front_wide_120fov" / "drive.json"
    record.unlink()
    assert "1 already done" in run()
    record.write_text("[]")
    assert "1 already done" in run()
    assert "0 already done" in run("--overwrite")
    assert videos(tmp_path) == before


def test_a_kill_between_video_and_record_leaves_no_wrong_record(folder, tmp_path, monkeypatch):
    argv = arguments(folder, tmp_path, "--frames=0:2", f"--cameras={NAMES[0]}")
    assert command.main(argv) == 0
    scene = load_scene(folder, camera_names=NAMES[0])
    settings = render.RenderSettings("upstream", 54, 96, 0, 2)
    other = render.Job(scene, settings, tmp_path, render.source_hash(folder, scene.id))
    renderer = Renderer(scene, "upstream", 54, 96)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(render, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        render.render_camera(other, renderer, NAMES[0], lambda: None)
    former = render.Job(scene, render.RenderSettings("documented", 54, 96, 0, 2), tmp_path, "")
    assert other.video(NAMES[0]).is_file() and not former.record(NAMES[0]).exists()


def test_footage_among_the_files_of_a_scene_does_not_count(folder):
    before = render.source_hash(folder, "drive")
    footage = folder / "drive.camera_front_wide_120fov.mp4"
    footage.write_bytes(b"video")
    assert render.source_hash(folder, "drive") == before
    footage.unlink()


def test_equal_frames_written_otherwise_are_kept(folder, tmp_path, capsys):
    for frames in ("10:", "10:12"):
        assert command.main(arguments(folder, tmp_path, f"--frames={frames}")) == 0
    assert "2 already done" in capsys.readouterr().out


def test_the_number_of_workers_changes_nothing(folder, tmp_path):
    for count in (1, 2):
        out = tmp_path / str(count)
        assert command.main(arguments(folder, out, f"--workers={count}", "--frames=4:7")) == 0
    one, two = (files(tmp_path / str(count)) for count in (1, 2))
    for content in (one, two):  # which tell how long it took
        for name in [name for name in content if name.startswith("f") and name.endswith("json")]:
            del content[name]
    assert one == two


def test_videos_hold_the_frames_of_the_library(folder, tmp_path):
    argv = arguments(folder, tmp_path, "--frames=5:7", "--cameras=camera_front_wide_120fov")
    assert command.main(argv) == 0
    settings = render.RenderSettings(height=54, width=96, start=5, stop=7)
    frames = list(render.render_frames(load_scene(folder), NAMES[0], settings))
    write_video(tmp_path / "expected.mp4", np.stack(frames), fps=30)
    found = tmp_path / f"ftheta_{NAMES[0]}" / "drive.mp4"
    assert np.stack(frames).max() > 200
    assert found.read_bytes() == (tmp_path / "expected.mp4").read_bytes()


def test_the_spec_names_the_cameras_of_earlier_runs(folder, tmp_path):
    for name in NAMES:
        argv = arguments(folder, tmp_path, "--frames=0:2", f"--cameras={name}")
        assert command.main(argv) == 0
    assert {"front_wide", "rear"} < set(json.loads((tmp_path / "drive.json").read_bytes()))


def test_an_odd_size_is_padded_and_said(folder, tmp_path, capsys):
    argv = arguments(folder, tmp_path, "--resolution=97x55", "--frames=0:2")
    assert command.main(argv) == 0
    assert "padded to even sizes" in capsys.readouterr().out
    assert probe(tmp_path / f"ftheta_{NAMES[0]}" / "drive.mp4").width == 98


def test_a_failing_camera_leaves_the_others_alone(folder, tmp_path, capsys):
    blocked = tmp_path / "ftheta_camera_front_wide_120fov" / "drive.mp4"
    (blocked / "in the way").mkdir(parents=True)
    argv = arguments(folder, tmp_path, "--frames=0:2")
    assert command.main(argv) == command.FAILED
    lines = capsys.readouterr().out
    assert "failed: camera_front_wide_120fov: " in lines and "1 cameras done, 1 failed" in lines
    record = json.loads(blocked.with_suffix(".json").read_bytes())
    assert record["status"] == "failed" and "Traceback" in record["traceback"]
    assert set(json.loads((tmp_path / "drive.json").read_bytes())) & set(
        multiview.VIEWS.values()
    ) == {"rear"}
    (blocked / "in the way").rmdir()
    blocked.rmdir()
    assert command.main(argv) == 0
    assert "1 already done" in capsys.readouterr().out


def job_of(folder, output) -> render.Job:
    scene = load_scene(folder, camera_names=CAMERAS[:3])
    settings = render.RenderSettings(height=54, width=96)
    return render.Job(scene, settings, output, render.source_hash(folder, scene.id))


def test_a_killed_worker_fails_its_camera_only(folder, tmp_path):
    job = job_of(folder, tmp_path)
    ends = {}
    with render.sole_user(job):
        for event in workers.render_all(job, list(job.scene.cameras), 1):
            if event.kind == "frame" and event.camera == CAMERAS[0]:
                for process in multiprocessing.active_children():
                    os.kill(process.pid, signal.SIGKILL)
            elif event.kind != "frame":
                ends[event.camera] = event
    assert [ends[name].kind for name in CAMERAS[:3]] == ["failed", "done", "done"]
    assert "killed" in ends[CAMERAS[0]].content
    assert len(videos(tmp_path)) == 2


def test_who_stops_early_leaves_no_process(folder, tmp_path):
    job = job_of(folder, tmp_path)
    with (
        render.sole_user(job),
        contextlib.closing(workers.render_all(job, list(job.scene.cameras), 2)) as events,
    ):
        next(events)
    assert not multiprocessing.active_children()
    assert not files(tmp_path)


# Tests that run in the background of a shell have SIGINT ignored, and children inherit that.
WITH_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_goes_on(folder, tmp_path, how):
    argv = arguments(folder, tmp_path, "--resolution=1280x720")
    command_line = [sys.executable, "-c", WITH_SIGINT, SCRIPT, *argv]
    process = subprocess.Popen(
        command_line, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    first = tmp_path / f"ftheta_{NAMES[0]}" / "drive.mp4"
    assert any("done, frames" in line for line in process.stdout)  # the first one is drawn
    os.kill(process.pid, how) if how != signal.SIGINT else os.killpg(process.pid, how)
    process.wait(30)
    expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert process.returncode == expected[how]
    wait_for(lambda: not group_alive(process.pid))  # workers end as well
    assert not first.exists()
    if how != signal.SIGKILL:
        assert not list(tmp_path.glob(f"{render.TEMPORARY_PREFIX}*"))
    again = arguments(folder, tmp_path)
    assert command.main(again) == 0
    assert len(videos(tmp_path)) == 2
    assert not list(tmp_path.glob(f"{render.TEMPORARY_PREFIX}*"))


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def group_alive(group: int) -> bool:
    """Whether a process of the group still runs; the dead may wait to be collected."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False


def test_one_run_at_a_time(folder, tmp_path):
    job = job_of(folder, tmp_path)
    job.workshop.mkdir()
    handle = os.open(job.workshop, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="another process renders drive"), render.sole_user(job):
        pass
    os.close(handle)


def test_check_tells_what_a_scene_holds(folder, capsys, tmp_path):
    assert command.main([f"--input={folder}", "--check"]) == 0
    lines = capsys.readouterr().out
    for line in (
        "scene: drive (clipgt)",
        "frames: 12 at 30 fps, 0.40 s",
        "tracks: 40",
        "  Truck: 4 (bus 2, heavy_truck 2)",
        "  crosswalks: 4",
        "gaps: none",
        "  lanes: 8, for which the videos have no colour",
        "  camera_front_wide_120fov: 1920x1080, 117 degrees wide",
    ):
        assert line in lines.splitlines()


def test_check_names_the_cameras_not_asked_for(folder, capsys):
    assert command.main([f"--input={folder}", "--check", f"--cameras={PAIR}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    others = [f"  {name}: there, not asked for" for name in CAMERAS if name not in NAMES]
    assert sum(line in others for line in lines) == 5


def test_overlays_keep_the_footage_where_the_control_is_black(folder, tmp_path):
    footage = tmp_path / "footage" / NAMES[0]
    footage.mkdir(parents=True)
    grey = np.repeat(np.full((1, 108, 192, 3), 120, np.uint8), 8, axis=0)
    write_video(footage / "drive.mp4", grey, fps=15)
    out = tmp_path / "out"
    argv = arguments(folder, out, f"--overlay={tmp_path / 'footage'}", "--frames=2:6")
    assert command.main(argv) == 0
    (path,) = (out / "overlay").rglob("*.mp4")
    assert path.relative_to(out / "overlay") == Path(f"ftheta_{NAMES[0]}/drive.mp4")
    shown, control = read_video(path), read_video(out / f"ftheta_{NAMES[0]}" / "drive.mp4")
    assert shown.shape == control.shape == (4, 54, 96, 3)
    black = control.max(axis=-1) < 4
    assert np.abs(shown[black].astype(int) - 120).mean() < 6  # chroma at half size
    assert shown.max() > 200


def test_damaged_or_short_footage_is_told(folder, tmp_path, capsys):
    path = tmp_path / "drive.camera_front_wide_120fov.mp4"
    path.write_bytes(b"no video")
    argv = arguments(folder, tmp_path / "out", f"--overlay={tmp_path}", "--frames=5:7")
    with pytest.raises(ValueError, match="not a video"):
        command.main(argv)
    write_video(path, np.zeros((2, 16, 16, 3), np.uint8), fps=30)
    assert command.main(argv) == command.FAILED
    lines = capsys.readouterr().out
    assert "no footage of camera_rear_tele_30fov" in lines
    assert "failed: overlay of camera_front_wide_120fov: " in lines
    assert len(videos(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--cameras=camera_roof"], "no camera camera_roof in .*; there is: camera_front_wide"),
        (["--cameras=,"], "no cameras named"),
        (["--resolution=big"], "write WIDTHxHEIGHT"),
        (["--resolution=0x0"], "width=0 is outside"),
        (["--resolution=3000x20"], "camera_front_wide_120fov does not hold at 3000x20: the poly"),
        (["--frames=3"], "write START:STOP"),
        (["--frames=3:3"], "frames 3:3 were asked for, but drive has 12"),
        (["--frames=0:13"], "use a range within 0:12"),
        (["--look=nice"], "use documented or upstream"),
        (["--workers=0"], "give 1 or more"),
        (["--fps=0"], "0 fps"),
        (["--fps=1e-300"], "from 0.01 to 1000"),
        (["--fps=x"], "invalid float value"),
        (["--alpha=2"], "outside"),
        (["--overlay=/nowhere"], "is not a folder"),
        (["--overlay=."], "has footage of none"),
        (["--sheet_frame=12"], "use one of 0..11"),
        (["--clip=other"], "has no clip other; there is: drive"),
        (["--input=/nowhere"], "/nowhere is not a folder"),
        (["--input="], "is not a scene|is not a folder"),
        (["--output=/dev/null/x"], "is, or lies under, a file"),
        (["--frame=1"], "unrecognized arguments"),
    ],
)
def test_wrong_input_is_one_line_before_rendering(folder, tmp_path, flags, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workers, "render_all", lambda *_: pytest.fail("rendered"))
    monkeypatch.setattr(sys, "argv", ["render", *arguments(folder, tmp_path / "out"), *flags])
    with pytest.raises((ValueError, OSError), match=message) as caught:
        command.main(sys.argv[1:])
    assert "\n" not in str(caught.value).strip()
    assert program.main(command.main) == 2
    assert not (tmp_path / "out").exists()


def test_an_output_folder_is_needed(folder):
    with pytest.raises(ValueError, match="give --output=DIR, or --check"):
        command.main([f"--input={folder}"])
    with pytest.raises(ValueError, match="--input"):
        command.main([])


def test_the_shipped_scene_is_the_one_the_builder_makes(tmp_path):
    shipped = load_scene(ROOT / "data" / "scenes" / "crossing")
    assert (shipped.id, shipped.frames, tuple(shipped.cameras)) == ("crossing", 300, CAMERAS)
    made = load_scene(synthetic_scene(0, tmp_path, "crossing"))
    for old, new in zip(shipped.tracks, made.tracks, strict=True):
        np.testing.assert_allclose(old.centers, new.centers, atol=1e-4)
    for old, new in zip(shipped.lane_lines, made.lane_lines, strict=True):
        np.testing.assert_allclose(old.points, new.points, atol=1e-4)
