"""Requests that two joined processes make together, when the leader alone meets trouble."""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from fake_mode import FakeConfig, FakeGenerator, fake_requests, provenance
from test_kill_resume import check_equal, newest_snapshot
from test_two_processes import environments

from jaxvid.core import distributed
from jaxvid.runs.config import RunConfig
from jaxvid.runs.runner import run
from jaxvid.runs.together import follow
from jaxvid.runs.writers import NpyWriter

FAKE = FakeConfig(requests=2, frames=96, size=16, chunk=8, seconds=0, batch_size=1, snapshots=1)


def take_part(output: Path, trouble: str) -> int:
    """What each of the processes does."""
    distributed.start()
    fake = dataclasses.replace(FAKE, seconds=0.5) if trouble == "slow" else FAKE
    load = lambda requests: FakeGenerator(fake)  # noqa: E731
    if jax.process_index() > 0:
        return follow(load, fake_requests(FAKE), output)
    if trouble == "full disk":
        usage = shutil.disk_usage("/")._replace(free=0)
        shutil.disk_usage = lambda path: usage
    if trouble == "broken file":
        NpyWriter.write = lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error"))
    config = RunConfig(output=str(output))
    return run(load, fake_requests(FAKE), config, provenance(FAKE), lead=True).exit_code


@contextlib.contextmanager
def two(output: Path, trouble: str):
    """The leader and the follower."""
    command = [sys.executable, __file__, str(output), trouble]
    processes = [
        subprocess.Popen(
            command,
            env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for environment in environments(2)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("trouble", "code", "says"), [
    ("nothing", 0, "2 done"), ("broken file", 3, "2 failed"), ("full disk", 4, "is full"),
])  # fmt: skip
def test_what_goes_wrong_in_the_leader_keeps_nobody_waiting(tmp_path, trouble, code, says):
    with two(tmp_path / "out", trouble) as processes:
        texts = [process.communicate(timeout=100)[0] for process in processes]
    assert processes[0].returncode == code and says in texts[0], texts
    if trouble != "full disk":
        assert processes[1].returncode == 0, texts[1]


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_either_ends_both_cleanly(tmp_path, told):
    """And the same command goes on where they were."""
    with two(tmp_path / "out", "slow") as processes:
        while newest_snapshot(tmp_path / "out") < 2 and processes[0].poll() is None:
            time.sleep(0.05)
        processes[told].send_signal(signal.SIGTERM)
        texts = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [143, 0], texts
    assert "interrupted by SIGTERM; the same command again does the rest" in texts[0]
    with two(tmp_path / "out", "nothing") as processes:
        texts = [process.communicate(timeout=100)[0] for process in processes]
    assert "goes on where an earlier run was ended" in texts[0] and "2 done" in texts[0], texts
    with two(tmp_path / "whole", "nothing") as processes:
        for process in processes:
            process.communicate(timeout=100)
    check_equal(tmp_path / "out", tmp_path / "whole")


if __name__ == "__main__":
    sys.exit(take_part(Path(sys.argv[1]), sys.argv[2]))
