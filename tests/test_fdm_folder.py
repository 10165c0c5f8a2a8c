"""FDM on a folder of videos, of which some are broken, or which are very many."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import script
import small_fdm

from jaxvid.core import probes
from jaxvid.core.config import load_config
from jaxvid.core.video import probe, write_video
from jaxvid.fdm.mode import FdmMode
from jaxvid.fdm.training_run import FdmTraining, from_config
from jaxvid.runs import training
from jaxvid.runs.manifest import Manifest


def clip(path: Path, height: int = 32) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (16, height, 32, 3), np.uint8)
    write_video(path, frames, 10)
    return path


def flags(folder: Path, output: Path) -> list[str]:
    """Of scripts/sample.py, with the demo model."""
    settings = {"checkpoint": "data/fdm_demo", "data.name": "videos", "data.root": folder}
    settings |= {"data.probes": "", "sampling.n_obs": 4, "sampling.batch_size": 40}
    settings |= {"sampling.video": "none", "run.gallery": False, "run.output": output}
    return [
        "--config=configs/fdm_sample.py",
        *(f"--config.{name}={value}" for name, value in settings.items()),
    ]


def break_some(folder: Path, monkeypatch) -> dict[str, str]:
    """Spoils five of the files, the first one among them; returns what is wrong with each."""
    (folder / "00.mp4").write_bytes((folder / "00.mp4").read_bytes()[:-500])
    (folder / "10.mp4").write_bytes(b"")
    (folder / "15.mp4").write_text("A text.")
    clip(folder / "20.mp4", height=24)

    def locked(path, *args, opened=av.open, **kwargs):  # root may read anything
        if path.endswith("39.mp4"):
            raise av.PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(av, "open", locked)
    return {
        "00": "the file is cut off after",
        "10": "the file is empty (0 bytes)",
        "15": "damaged or not a video",
        "20": "frames are 24x32 (rows x columns), but 32x32 is wanted",
        "39": "cannot be read as a video (Permission denied)",
    }


def test_broken_videos_are_named_and_the_others_made(tmp_path, at_root, monkeypatch, capsys):
    small_fdm.replace_network(monkeypatch)
    folder, output = tmp_path / "clips", tmp_path / "out"
    folder.mkdir()
    whole = clip(tmp_path / "whole.mp4").read_bytes()
    for number in range(40):
        (folder / f"{number:02}.mp4").write_bytes(whole)
    wrong = break_some(folder, monkeypatch)
    assert script.load("sample").sample(flags(folder, output)) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "35 done, 0 skipped, 5 failed"
    for name, cause in wrong.items():
        id = f"sample_00{name}-0"
        told = [line for line in lines if line.startswith(f"failed: {id}: ")]
        assert len(told) == 1 and f"{name}.mp4: {cause}" in told[0]
        assert Manifest(output).latest()[id]["kind"] == "bad input"
    assert len(list(output.glob("samples/*.npy"))) == 35


def test_training_names_all_broken_videos_first(tmp_path, at_root, monkeypatch):
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(40):
        clip(folder / f"{number:02}.mp4")
    wrong = break_some(folder, monkeypatch)
    config = load_config("configs/fdm_demo_train.py:tiny")
    config.data.update(name="videos", root=str(folder), size=32, test_videos=10, probes="")
    config.network.image_size = 32
    config.mesh.update(data=2, view=4)
    config.run.output = str(tmp_path / "out")
    monkeypatch.setattr(FdmTraining, "initial_state", lambda _: pytest.fail("too late"))
    *train, test = (f"{name}.mp4: {cause}" for name, cause in wrong.items())
    assert test.startswith("39")
    with pytest.raises(ValueError, match="4 of 30 train videos cannot be used") as error:
        training.run(from_config(config))
    assert all(text in str(error.value) for text in train)
    for name in wrong:
        if name != "39":
            clip(folder / f"{name}.mp4")
    config.train.sample_every = 1
    with pytest.raises(ValueError, match="1 of 10 test videos cannot be used") as error:
        training.run(from_config(config))
    assert test in str(error.value)


def test_planning_looks_at_no_video_twice(tmp_path, at_root, monkeypatch):
    looks = []
    counted = lambda path: looks.append(path) or probe(path)  # noqa: E731
    monkeypatch.setattr(probes, "probe", counted)
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a", "b", "c"):
        clip(folder / f"{name}.mp4")
    config = load_config("configs/fdm_demo.py")
    config.data.update(root=str(folder), frames=None, probes=str(tmp_path / "kept"))
    config.sampling.n_obs = 4
    first = FdmMode(config)
    wanted = first.requests()
    assert len(wanted) == len(looks) == 3 and not any(request.error for request in wanted)
    assert FdmMode(config).requests() == wanted and len(looks) == 3
    config.data.probes = ""
    assert FdmMode(config).provenance() == first.provenance()


PLANS = """
import resource, sys, time
begin = time.monotonic()
from jaxvid.core.config import load_config
from jaxvid.fdm.mode import FdmMode
config = load_config("configs/fdm_demo.py")
config.data.update(root=sys.argv[1], frames=None, probes=sys.argv[2])
config.sampling.n_obs = 4
start = time.process_time()
mode = FdmMode(config)
requests = mode.requests()
mode.provenance(), mode.plan(requests)
assert len(requests) == 10_000 and not any(r.error for r in requests)
cpu, memory = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(cpu, time.monotonic() - begin, memory)
"""


@pytest.mark.slow
def test_ten_thousand_videos_are_planned_in_seconds(tmp_path):
    """The second time: 5 s of CPU after the imports, a minute by the clock with them, 500 MB.

    The clock's limit is for a loaded machine; a free one takes a tenth of it.
    """
    folder = tmp_path / "clips"
    folder.mkdir()
    first = clip(folder / "clip_0.mp4")
    for number in range(1, 10_000):
        os.link(first, folder / f"clip_{number}.mp4")
    command = [sys.executable, "-c", PLANS, str(folder), str(tmp_path / "kept")]
    environ = os.environ | {"PYTHONPATH": str(small_fdm.ROOT), "JAX_PLATFORMS": "cpu"}
    for _ in range(2):
        done = subprocess.run(
            command, cwd=small_fdm.ROOT, env=environ, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        print(done.stdout)
    cpu, wall, memory = map(float, done.stdout.split()[-3:])
    assert cpu < 5 and wall < 60 and memory < 500, (cpu, wall, memory)
