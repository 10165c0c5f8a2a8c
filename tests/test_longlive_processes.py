"""LongLive over several processes and several lives: the same videos as of one undisturbed run."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import small_longlive
from test_kill_resume import check_equal, newest_snapshot
from test_two_processes import environments

from jaxvid.core.video import read_video
from jaxvid.runs.manifest import Manifest

pytestmark = pytest.mark.slow
EXACT = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
MESH = {"mesh.data": 1, "mesh.seq": 2, "mesh.tensor": 2}
LONG = {
    "sampling.prompt": ("A cat sleeps.", "The cat wakes up.", "It leaves."),
    "sampling.switch_frames": "(6, 20)",
    "sampling.latent_frames": 40,
    "sampling.checkpoint_blocks": 3,
}


def command(output: Path, **changes) -> list[str]:
    return [
        sys.executable,
        "scripts/sample.py",
        *small_longlive.arguments(run__output=output, **changes),
    ]


def start(output: Path, devices: int = 1, processes: int = 1, **changes) -> list[subprocess.Popen]:
    """The script in one process, or in several that have so many devices each."""
    return [
        subprocess.Popen(
            command(output, **changes),
            cwd=small_longlive.ROOT,
            env=environment | EXACT | {"JAX_NUM_CPU_DEVICES": str(devices)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for environment in environments(processes)
    ]


def end(processes: list[subprocess.Popen]) -> list[str]:
    try:
        texts = [process.communicate(timeout=400)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(texts)
    return texts


def videos(output: Path) -> dict[str, np.ndarray]:
    return {path.name: read_video(path) for path in sorted(output.rglob("*.mp4"))}


def kill(processes: list[subprocess.Popen], output: Path, snapshots: int):
    """SIGKILL to all once there are so many snapshots."""
    while processes[0].poll() is None and newest_snapshot(output) < snapshots:
        time.sleep(0.002)
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.communicate()
    assert newest_snapshot(output) >= snapshots and not list(output.rglob("videos/*"))


def test_a_long_video_killed_twice(tmp_path):
    """Across prompt switches, with the decoder's past: bytes as of an undisturbed run."""
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    end(start(whole, **LONG))
    for snapshots in (1, 3):
        kill(start(disturbed, **LONG), disturbed, snapshots)
    assert "goes on where" in end(start(disturbed, **LONG))[0]
    check_equal(disturbed, whole)


@pytest.mark.parametrize("source", ["prompts", "clip"])
def test_two_processes_make_each_video_together(tmp_path, source):
    """Two of two devices each, as one of four; only the first one writes."""
    changes = {"run.hosts": "together", **MESH}
    if source == "clip":
        changes["sampling.prompts"] = small_longlive.ROOT / "data/prompts/video_conditional.jsonl"
    alone, together = tmp_path / "alone", tmp_path / "together"
    end(start(alone, devices=4, **changes))
    first, second = end(start(together, devices=2, processes=2, **changes))
    assert " done, 0 skipped" in first and " done" not in second
    found, wanted = videos(together), videos(alone)
    assert found.keys() == wanted.keys() and found
    for name, video in found.items():
        difference = np.abs(video.astype(int) - wanted[name])
        # sums over devices come in any order; the encoder makes a few levels of a rounded one
        assert difference.mean() < 0.1 and difference.max() <= 16
    assert {row["devices"] for row in Manifest(together).rows()} == {"4 x cpu"}
    first, second = end(start(together, devices=2, processes=2, **changes))
    assert "0 to make" in first


def test_two_processes_are_killed_and_go_on_together(tmp_path):
    changes = {"run.hosts": "together", **MESH, **LONG}
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    end(start(whole, devices=2, processes=2, **changes))
    kill(start(disturbed, devices=2, processes=2, **changes), disturbed, 1)
    assert "goes on where" in end(start(disturbed, devices=2, processes=2, **changes))[0]
    check_equal(disturbed, whole)


BLIND = """
import os, sys
if os.environ.get("JAXVID_PROCESS_INDEX") == "1":
    sys.path.insert(0, {root!r})
    from jaxvid.longlive import sample
    read = sample.read_video
    def blind(path, *rest):
        if "hidden" in str(path):
            raise OSError("stale file handle")
        return read(path, *rest)
    sample.read_video = blind
"""


def test_a_clip_that_one_process_cannot_read_fails_in_both(tmp_path):
    """It is recorded, and the next request is made."""
    (tmp_path / "sitecustomize.py").write_text(BLIND.format(root=str(small_longlive.ROOT)))
    clips = [tmp_path / "hidden.mp4", tmp_path / "seen.mp4"]
    for clip in clips:
        clip.write_bytes(small_longlive.ROOT.joinpath("data/clips/maze_walk.mp4").read_bytes())
    rows = [{"video_path": str(clip), "prompt1": "a", "prompt2": "b"} for clip in clips]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    changes = {"run.hosts": "together", **MESH, "sampling.prompts": tmp_path / "list.jsonl"}
    output = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        processes = start(output, devices=2, processes=2, **changes)
    texts = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [3, 0], texts
    assert "video_0000-0: process 1: OSError: stale file handle" in texts[0]
    assert "1 done, 0 skipped, 1 failed" in texts[0]
    assert list(videos(output)) == ["video_0001-0.mp4"]
