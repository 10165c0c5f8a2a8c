"""Clips x prompts end to end, and forty requests of which twelve are broken."""

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import small_multiview as small
from script import load

from jaxvid.core import distributed
from jaxvid.core.video import probe
from jaxvid.core.views import CAMERAS, VIEWS
from jaxvid.cosmos import generate
from jaxvid.cosmos.chunks import Piece
from jaxvid.cosmos.mode import CosmosMode
from jaxvid.cosmos.multirun_flags import multirun_overrides
from jaxvid.runs.config import RunConfig
from jaxvid.runs.manifest import Manifest
from jaxvid.runs.names import original
from jaxvid.runs.outcome import PARTIAL
from jaxvid.runs.requests import Chunk
from jaxvid.runs.runner import run

script = load("sample")
WEIRD = (
    "a/b",
    "../../out",
    ".",
    "..",
    "two\nlines",
    "tab\t",
    "k" * 300,
    "k" * 301,
    "夜の雨",
    "a b",
)


def add_clip(root: Path, uid: str, prompts, views=VIEWS, frames=7, fps=10):
    """Links small control videos into camera folders and writes the prompt file."""
    for view, paths in small.write_videos(root, views, frames, fps).items():
        folder = root / "controls" / f"ftheta_{CAMERAS[view]}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / paths["control_path"], folder / f"{uid}.mp4")
    (root / "prompts").mkdir(exist_ok=True)
    if prompts is not None:
        text = prompts if isinstance(prompts, str) else json.dumps(prompts)
        (root / "prompts" / f"{uid}.json").write_text(text)


def settings(root: Path, **changes) -> dict:
    """Changes of the small config for the folders of a test."""
    base = root / "base.json"
    base.write_text(json.dumps({"num_conditional_frames": 0, "seed": 1}))
    folders = {f"multirun__{name}": str(root / name) for name in ("controls", "prompts")}
    found = {"sampling__specs": "()", "multirun__params": str(base), **folders}
    return found | {"sampling__files": "()"} | changes


def lock(path: Path, patch: pytest.MonkeyPatch):
    """Nobody may read the file; root, who may always, is refused all the same."""
    path.chmod(0)
    real = av.open

    def refusing(file, *args, **kwargs):
        if file == str(path.resolve()):
            raise av.PermissionError(errno.EACCES, "Permission denied", file)
        return real(file, *args, **kwargs)

    if os.access(path, os.R_OK):
        patch.setattr(av, "open", refusing)


def poison(root: Path, patch: pytest.MonkeyPatch) -> dict[str, str]:
    """28 good requests of one clip and 12 broken ones; the broken ones' ids and causes."""
    keys = [*WEIRD, *(f"look {n}" for n in range(28 - len(WEIRD)))]
    add_clip(root, "good", dict.fromkeys(keys, "A road."))
    for uid in ("cut", "empty", "locked"):
        add_clip(root, uid, {"x": "A road."})
    rear = root / "controls" / f"ftheta_{CAMERAS['rear']}"
    (rear / "cut.mp4").write_bytes((rear / "cut.mp4").read_bytes()[:600])
    (rear / "empty.mp4").write_bytes(b"")
    lock(rear / "locked.mp4", patch)
    add_clip(root, "camera", {"x": "A road."}, views=VIEWS[1:])
    add_clip(root, "rate", {"x": "A road."}, fps=7)
    add_clip(root, "short", {"x": "A road."}, frames=2)
    add_clip(root, "json", '{"x": ')
    add_clip(root, "none", None)
    add_clip(root, "blank", {"x": "  "})
    add_clip(root, "twice", '{"x": "A", "x": "B"}')
    add_clip(root, "number", {"x": 3})
    add_clip(root, "long", {"x": "word " * 3000})
    return {
        "cut_x": "damaged or not a video",
        "empty_x": "0 bytes",
        "locked_x": "locked.mp4: cannot be read as a video (Permission denied)",
        "camera": "there is no camera.mp4 in camera_front_wide_120fov",
        "rate_x": "does not divide",
        "short_x": "has 2 frames",
        "json": "no JSON",
        "none": "no prompt file",
        "blank_x": "the prompt is empty",
        "twice_x": "occurs twice",
        "number_x": "not a text",
        "long_x": "longer than 512 tokens",
    }


class Grey:
    """Stands for the networks: grey frames for every output."""

    batch_size = 1

    def group(self, request):
        return 0

    def generate(self, requests):
        for name in requests[0].outputs:
            grey = np.full((3, 16, 16, 3), 99, np.uint8)
            yield Chunk(0, name, {} if name == "arguments" else grey)


def check_poisoned(root: Path, summary, broken: dict[str, str], text: str):
    assert summary.exit_code == PARTIAL and summary.done == 28
    causes = dict(summary.failures)
    assert causes.keys() == broken.keys()
    for id, cause in broken.items():
        assert cause in causes[id], (id, causes[id])
        assert sum(line.startswith(f"failed: {id}: ") for line in text.splitlines()) == 1
    rows = Manifest(root / "out").latest()
    done = {row["options"]["variant"]: row for row in rows.values() if row["status"] == "done"}
    assert set(WEIRD) < done.keys() and len(done) == 28
    for variant, row in done.items():
        assert len(variant) > 200 or original(row["id"]) == f"good_{variant}"
        for entry in row["outputs"].values():
            path = (root / "out" / entry["file"]).resolve()
            assert path.is_relative_to((root / "out").resolve())
            assert path.stat().st_size == entry["bytes"]
    known = {"controls", "prompts", "base.json", "out"}
    assert {path.name for path in root.iterdir() if path.suffix != ".mp4"} == known


def test_of_forty_requests_twelve_broken(tmp_path, capsys, monkeypatch):
    broken = poison(tmp_path, monkeypatch)
    mode = CosmosMode(small.config(**settings(tmp_path, multirun__missing="fail")))
    requests = mode.requests()
    assert len(requests) == 40
    config = RunConfig(output=str(tmp_path / "out"))
    summary = run(lambda _: Grey(), requests, config, mode.provenance())
    check_poisoned(tmp_path, summary, broken, capsys.readouterr().out)
    assert not mode.plan([r for r in requests if not r.error]).compilations == 0


def test_clips_that_are_skipped_are_told_once(tmp_path, capsys, monkeypatch):
    add_clip(tmp_path, "part", {"x": "A road."}, ("front_wide", "rear"))
    mode = CosmosMode(small.config(**settings(tmp_path, multirun__missing="skip")))
    assert mode.requests() == [] and not mode.plan([]).frames
    assert not capsys.readouterr().out
    first, *others = mode.plan([]).lines()
    assert first.startswith("part is left out (multirun.missing=skip): there is no part.mp4")
    monkeypatch.setattr(distributed, "process", lambda: (1, 2))
    assert mode.plan([]).lines() == others


def test_controls_are_read_ahead(tmp_path, monkeypatch):
    add_clip(tmp_path, "a", {"x": "A road.", "y": "A hill."}, ("front_wide", "rear"))
    mode = CosmosMode(small.config(**settings(tmp_path)))
    request, _ = mode.requests()
    generator = SimpleNamespace(settings=mode.settings, ahead={})
    wanted = generate.Video(generator, request).read("control", 0, mode.settings.frames)
    generate.Generator.prefetch(generator, [request])
    monkeypatch.setattr(generate, "iter_video", None)  # nothing is read any more
    found = generate.Video(generator, request).read("control", 0, mode.settings.frames)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.slow
def test_the_same_forty_with_the_networks(tmp_path, capsys, monkeypatch):
    broken = poison(tmp_path, monkeypatch)
    config = small.config(**settings(tmp_path, multirun__missing="fail", overrides__num_steps=1))
    config.run.output = str(tmp_path / "out")
    mode = script.open_mode(config)
    summary = script.make(mode, config, mode.load)
    check_poisoned(tmp_path, summary, broken, capsys.readouterr().out)


def test_frames_go_to_the_files_of_the_tool(tmp_path):
    """Views one after the other, around the vehicle, and below their controls."""
    add_clip(tmp_path, "a", {"x": "A road."}, ("front_wide", "rear", "rear_left"))
    mode = CosmosMode(small.config(**settings(tmp_path)))
    (request,) = mode.requests()
    video = generate.Video(SimpleNamespace(settings=mode.settings, ahead={}), request)
    shape = (2, 3, mode.settings.frames, 8, 12, 3)
    frames, video.controls = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    chunks = list(video.files(Piece(0, frames, frames[:, :0])))
    combined = np.concatenate([c.frames for c in chunks if c.name == "combined"])
    found = {c.name: c.frames for c in chunks}
    assert {*found, "arguments"} == request.outputs.keys()
    np.testing.assert_array_equal(combined, np.concatenate(frames))
    np.testing.assert_array_equal(found["around"][:, :8, 12:], frames[1])
    np.testing.assert_array_equal(found["around"][:, 8:, 6:18], frames[2])  # alone, so centred
    np.testing.assert_array_equal(found["control_grid"][:, 16:], found["around"])
    np.testing.assert_array_equal(found["control_grid"][:, :8, :12], video.controls[0])


@pytest.mark.slow
def test_clips_and_prompts_end_to_end(tmp_path, capsys):
    """The outputs of the multi-run tool; a clip without some cameras runs with those it has."""
    views = ("front_wide", "rear")
    add_clip(tmp_path, "b", {"night rain": "A wet road."}, views)
    config = small.config(**settings(tmp_path, run__output=str(tmp_path / "out")))
    mode = script.open_mode(config)
    assert "without camera_cross_right_120fov" in "\n".join(mode.plan(mode.requests()).lines())
    assert script.make(mode, config, mode.load).exit_code == 0, capsys.readouterr().out
    folder = tmp_path / "out" / "b_night rain"
    found = {path.name: path for path in folder.iterdir()}
    assert set(found) == {
        *("output.json", "output.mp4", "output_grid.mp4", "output_with_control_grid.mp4"),
    }
    frames, (height, width) = mode.settings.frames, (16, 32)
    sizes = {"output": (2 * frames, height, width), "output_grid": (frames, 2 * height, width)}
    sizes["output_with_control_grid"] = (frames, 4 * height, width)
    for name, size in sizes.items():
        info = probe(found[f"{name}.mp4"])
        assert (info.frames, info.height, info.width) == size and info.fps == 10, name
    row = Manifest(tmp_path / "out").rows()[0]
    assert row["options"]["uid"] == "b" and row["options"]["variant"] == "night rain"


def test_flags_of_the_tool(capsys):
    flags = "--params_file base.json --num_gpus=8 --control-videos c --prompts_folder p"
    found = multirun_overrides([*flags.split(), "--config.run.shard=0/2", "--plan"])
    assert found == [
        *("--config.multirun.params=base.json", "--config.multirun.controls=c"),
        "--config.multirun.prompts=p",
        *("--config=configs/cosmos_multiview.py:multirun", "--config.run.shard=0/2", "--plan"),
    ]
    assert "all devices are used" in capsys.readouterr().out
    assert multirun_overrides(["--config=x.py"]) == ["--config=x.py"]
    released = ["--params_file=x", "--experiment", "transfer2_auto_multiview_post_train_example"]
    assert "--config.multirun.params=x" in multirun_overrides(released)
    with pytest.raises(ValueError, match=r"--experiment=mine is none of .*models\.settings"):
        multirun_overrides(["--params_file=x", "--experiment=mine"])
    with pytest.raises(ValueError, match="did you mean prompts_folder"):
        multirun_overrides(["--params_file=x", "--prompt_folder=y"])


def test_specs_or_folders():
    with pytest.raises(ValueError, match="leave one empty"):
        CosmosMode(small.config(multirun__controls=".", multirun__prompts="."))
