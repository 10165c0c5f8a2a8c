"""The multiview mode over several processes and several lives: the same videos as of one."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small_multiview import ROOT, arguments, write_spec, write_videos
from test_kill_resume import check_equal, newest_snapshot
from test_two_processes import environments

from jaxvid.core.video import read_video

pytestmark = pytest.mark.slow


def start(path, output, processes=1, devices=1, **changes) -> list[subprocess.Popen]:
    """The script in one process, or in several that make each sample together."""
    words = arguments(sampling__specs=f"('{path}',)", run__output=output, overrides__num_steps=4,
                      sampling__files="('combined', 'views', 'grid')", **changes)  # fmt: skip
    own = {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    command = [sys.executable, "scripts/sample.py", *words]
    return [
        subprocess.Popen(command, cwd=ROOT, env=environment | own, stdout=subprocess.DEVNULL)
        for environment in environments(processes)
    ]


def end(processes: list[subprocess.Popen]):
    try:
        assert [process.wait(400) for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()


def test_a_long_video_killed_in_its_second_chunk(tmp_path):
    videos = write_videos(tmp_path, ("front_wide", "rear"), frames=40)
    changes = {"enable_autoregressive": True, "num_chunks": 12}
    path = write_spec(tmp_path, videos, **changes)
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    end(start(path, whole))
    (process,) = start(path, disturbed)
    while process.poll() is None and newest_snapshot(disturbed) < 1:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert newest_snapshot(disturbed) in range(1, 11) and not list(disturbed.glob("clip/*"))
    end(start(path, disturbed))
    check_equal(disturbed, whole)


def test_two_processes_make_a_sample_together(tmp_path):
    changes = {"enable_autoregressive": True, "num_conditional_frames": 1}
    videos = write_videos(tmp_path)
    for view, paths in write_videos(tmp_path, kind="input").items():
        videos[view] |= paths
    path = write_spec(tmp_path, videos, **changes)
    alone, both = tmp_path / "alone", tmp_path / "both"
    end(start(path, alone))
    end(start(path, both, processes=2, devices=2, run__hosts="together"))
    row = json.loads((both / "manifest.jsonl").read_text())
    assert row["devices"] == "4 x cpu"
    for file in (p for p in alone.glob("clip/*.mp4")):
        found = read_video(both / "clip" / file.name).astype(int)
        assert np.abs(found - read_video(file)).mean() < 0.5
