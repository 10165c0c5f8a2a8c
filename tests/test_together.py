"""Requests that two joined processes make together, when the leader alone meets trouble."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from fake_mode import FakeConfig, FakeGenerator, fake_requests, provenance
from test_two_processes import environments

from jaxvid.core import distributed
from jaxvid.runs.config import RunConfig
from jaxvid.runs.runner import run
from jaxvid.runs.together import follow
from jaxvid.runs.writers import NpyWriter

FAKE = FakeConfig(requests=2, frames=32, size=16, chunk=8, seconds=0, batch_size=1, snapshots=1)


def take_part(output: Path, trouble: str) -> int:
    """What each of the processes does."""
    distributed.start()
    load = lambda requests: FakeGenerator(FAKE)  # noqa: E731
    if jax.process_index() > 0:
        return follow(load, fake_requests(FAKE), output)
    if trouble == "full disk":
        usage = shutil.disk_usage("/")._replace(free=0)
        shutil.disk_usage = lambda path: usage
    if trouble == "broken file":
        NpyWriter.write = lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error"))
    config = RunConfig(output=str(output))
    return run(load, fake_requests(FAKE), config, provenance(FAKE), lead=True).exit_code


@pytest.mark.slow
@pytest.mark.parametrize(("trouble", "code", "says"), [
    ("nothing", 0, "2 done"), ("broken file", 3, "2 failed"), ("full disk", 4, "is full"),
])  # fmt: skip
def test_what_goes_wrong_in_the_leader_keeps_nobody_waiting(tmp_path, trouble, code, says):
    command = [sys.executable, __file__, str(tmp_path / "out"), trouble]
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
        texts = [process.communicate(timeout=100)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert processes[0].returncode == code and says in texts[0], texts
    if trouble != "full disk":
        assert processes[1].returncode == 0, texts[1]


if __name__ == "__main__":
    sys.exit(take_part(Path(sys.argv[1]), sys.argv[2]))
