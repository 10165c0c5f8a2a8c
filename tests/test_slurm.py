"""A SLURM array: four tasks share one output folder, one is killed, one preempted.

Needs a running SLURM (SLURM_CONF) with requeueing allowed.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_fdm
import small_longlive
from test_kill_resume import FAKE, check_equal, complete, manifest, outputs

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif("SLURM_CONF" not in os.environ, reason="no SLURM_CONF"),
]

COMMAND = f"{sys.executable} {FAKE} --requests=12 --batch_size=1 --seconds=0.4 --output={{output}}"
ROOT = Path(__file__).parents[1]
PATIENCE = 240  # seconds for each wait


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


SBATCH = ("sbatch", "--parsable", "--ntasks=1", "--output={log}/log-%x-%A-%a.txt")
FILE = "scripts/slurm/sample.sbatch"


def submit(tmp_path: Path, *options: str, command: str) -> str:
    """Submits the repository's sbatch file with the arguments of a sampling command."""
    words = [word.format(log=tmp_path) for word in SBATCH]
    arguments = shlex.split(command)[2:]  # after python and the script
    environment = os.environ | {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [*words, *options, FILE, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for_end(job: str, tmp_path: Path) -> str:
    """Until the job has left the queue, at once if it is queued anew; returns all logs."""

    def ended():
        for line in ask("squeue", "-h", "-r", "-o", "%i %T", "-j", job).splitlines():
            task, found = line.split()
            if found == "PENDING":  # SLURM holds a requeued job back for two minutes
                subprocess.run(
                    ["scontrol", "update", f"JobId={task}", "StartTime=now"], check=False
                )
        return not ask("squeue", "-h", "-j", job)

    wait_until(ended, f"{job} has ended")
    return "\n".join(p.read_text() for p in sorted(tmp_path.glob("log-*.txt")))


def test_tasks_told_to_end_are_queued_again(tmp_path):
    """SIGTERM, as before a time limit or at a preemption: exit code 143, requeued, goes on."""
    command = small_fdm.command(tmp_path) + " --config.sampling.respacing=ddim4"
    whole, folder = tmp_path / "whole", tmp_path / "array"
    complete(command, whole)
    job = submit(tmp_path, "--array=0-1", command=command.format(output=folder))
    wait_until(lambda: done_by(folder, "1/2"), "task 1 has made one")
    ask("scancel", "--signal=TERM", f"{job}_1")
    logs = wait_for_end(job, tmp_path)
    assert "interrupted by SIGTERM; the same command again does the rest" in logs, logs
    assert "already done" in logs, logs
    check_equal(folder, whole)


def test_two_tasks_of_one_job_divide_the_requests(tmp_path):
    command = small_fdm.command(tmp_path) + " --config.sampling.respacing=ddim4"
    whole, folder = tmp_path / "whole", tmp_path / "divided"
    complete(command, whole)
    job = submit(tmp_path, "--ntasks=2", command=command.format(output=folder))
    logs = wait_for_end(job, tmp_path)
    check_equal(folder, whole)
    assert {row["share"] for row in manifest(folder).rows()} == {"0/2", "1/2"}, logs


def test_two_tasks_make_one_video_on_one_mesh(tmp_path):
    """`run.hosts=together`: the frames are those of one process, up to rounding."""
    changes = {"mesh__data": 1, "mesh__seq": -1, "run__hosts": "together"}
    script = f"{sys.executable} {ROOT}/scripts/sample.py"
    arguments = [*small_longlive.arguments(**changes), f"--config.run.output={tmp_path}/together"]
    job = submit(tmp_path, "--ntasks=2", command=f"{script} {shlex.join(arguments)}")
    logs = wait_for_end(job, tmp_path)
    rows = manifest(tmp_path / "together").rows()
    assert [row["status"] for row in rows] == ["done"] * len(rows) and rows, logs
    assert rows[0]["devices"].startswith("2 x"), logs
