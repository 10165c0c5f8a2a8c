"""A SLURM array: four tasks share one output folder, one is killed, one preempted.

Needs a running SLURM (SLURM_CONF) with requeueing allowed.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_fdm
from test_kill_resume import FAKE, check_equal, complete, manifest, outputs

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif("SLURM_CONF" not in os.environ, reason="no SLURM_CONF"),
]

COMMAND = f"{sys.executable} {FAKE} --requests=12 --batch_size=1 --seconds=0.4 --output={{output}}"
PATIENCE = 120  # seconds for each wait


def ask(*command: str) -> str:
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def wait_until(condition, what: str):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.2)


def state(task: str) -> str:
    return ask("squeue", "-h", "-t", "all", "-o", "%T", "-j", task)


def done_by(folder: Path, share: str) -> int:
    if not list(folder.rglob("manifest.jsonl")):
        return 0
    return sum(row["share"] == share for row in manifest(folder).rows())


def requeue(task: str):
    ask("scontrol", "requeue", task)
    wait_until(lambda: state(task) in ("PENDING", "RUNNING"), f"{task} is queued again")
    if state(task) == "PENDING":  # SLURM holds a requeued job back for two minutes
        subprocess.run(["scontrol", "update", f"JobId={task}", "StartTime=now"], check=False)


@pytest.mark.parametrize("mode", ["fake", "fdm"])
def test_array_with_killed_tasks(tmp_path, mode):
    command = COMMAND if mode == "fake" else small_fdm.command(tmp_path)
    whole, folder = tmp_path / "whole", tmp_path / "array"
    complete(command, whole)
    log = f"--output={tmp_path}/log-%a.txt"
    run = command.format(output=folder)
    script = f"#!/bin/bash\necho $$ > {tmp_path}/pid-$SLURM_ARRAY_TASK_ID\nexec {run}\n"
    path = tmp_path / "array.sh"
    path.write_text(script)
    job = ask(
        "sbatch", "--parsable", "--array=0-3", "--requeue", "--open-mode=append", log, str(path)
    )
    wait_until(lambda: done_by(folder, "1/4"), "task 1 has made one")
    os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)  # as when a node dies
    wait_until(lambda: state(f"{job}_1") == "FAILED", "task 1 has failed")
    requeue(f"{job}_1")
    wait_until(lambda: done_by(folder, "2/4"), "task 2 has made one")
    requeue(f"{job}_2")  # while it runs: SLURM sends SIGTERM, as at a preemption
    wait_until(lambda: not ask("squeue", "-h", "-j", job), "the array has ended")
    logs = "\n".join(p.read_text() for p in sorted(tmp_path.glob("log-*.txt")))
    assert "already done" in logs, logs
    assert outputs(folder).keys() == outputs(whole).keys(), logs
    check_equal(folder, whole)
    assert {row["share"] for row in manifest(folder).rows()} == {f"{n}/4" for n in range(4)}
