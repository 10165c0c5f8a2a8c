"""Runs under SLURM: arrays and jobs of several tasks, killed, preempted and queued again.

Needs a running SLURM (SLURM_CONF) with requeueing allowed.
"""

import json
import os
import re
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
from test_sixty_requests import COUNTS, clips, items, rows

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


def restarts(array: str) -> dict[str, int]:
    """How often each task of an array was queued again."""
    text = ask("scontrol", "-o", "show", "job", array)
    found = re.findall(r"ArrayTaskId=(\d+) .*?Restarts=(\d+)", text)
    return {task: int(count) for task, count in found}


def requeue(task: str):
    ask("scontrol", "requeue", task)
    wait_until(lambda: state(task) in ("PENDING", "RUNNING"), f"{task} is queued again")
    if state(task) == "PENDING":  # SLURM holds a requeued job back for two minutes
        subprocess.run(["scontrol", "update", f"JobId={task}", "StartTime=now"], check=False)


def fake(_) -> str:
    return COMMAND


@pytest.mark.parametrize("source", [fake, clips, rows, items])
def test_array_with_killed_tasks(tmp_path, source):
    """Four tasks share one output folder, one is killed, one preempted."""
    command = source(tmp_path)
    whole, folder = tmp_path / "whole", tmp_path / "array"
    complete(command, whole)
    assert len(manifest(whole).rows()) == COUNTS.get(source.__name__, 12)
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
    assert re.search(r"[1-9]\d* already done", logs), logs
    assert outputs(folder).keys() == outputs(whole).keys(), logs
    check_equal(folder, whole)
    assert {row["share"] for row in manifest(folder).rows()} == {f"{n}/4" for n in range(4)}


SBATCH = ("sbatch", "--parsable", "--ntasks=1", "--output={log}/log-%x-%A-%a.txt")
FILE = "scripts/slurm/sample.sbatch"


def submit(tmp_path: Path, *options: str, command: str, **variables: str) -> str:
    """Submits the repository's sbatch file with the arguments of a sampling command."""
    words = [word.format(log=tmp_path) for word in SBATCH]
    arguments = shlex.split(command)[2:]  # after python and the script
    environment = os.environ | {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"} | variables
    done = subprocess.run(
        [*words, *options, FILE, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait_for_end(job: str, tmp_path: Path) -> str:
    """Until the job has ended and is not queued anew, which then begins at once; all logs."""

    def ended():
        lines = ask("squeue", "-h", "-r", "-t", "all", "-o", "%i %T", "-j", job).splitlines()
        states = dict(line.split() for line in lines)
        for task in (task for task, found in states.items() if found == "PENDING"):
            # SLURM holds a requeued job back for two minutes
            subprocess.run(["scontrol", "update", f"JobId={task}", "StartTime=now"], check=False)
        return set(states.values()) <= {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"}

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
    wait_until(lambda: any(restarts(job).values()), "a task is queued again")
    assert restarts(job) == {"0": 0, "1": 1}
    logs = wait_for_end(job, tmp_path)
    assert "interrupted by SIGTERM; the same command again does the rest" in logs, logs
    assert re.search(r"[1-9]\d* already done", logs), logs
    check_equal(folder, whole)


def test_two_tasks_of_one_job_divide_the_requests(tmp_path):
    """One has nothing but failures and ends at once; the other works on."""
    row = {"video_path": str(ROOT / "data/clips/maze_walk.mp4"), "prompt1": "A maze."}
    found = [row | {"prompt2": "A room." if n % 2 else "", "seed": n} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, found)))
    words = small_longlive.arguments(sampling__prompts=tmp_path / "rows.jsonl")
    command = f"{sys.executable} {ROOT}/scripts/sample.py {shlex.join(words)}"
    job = submit(tmp_path, "--ntasks=2", command=f"{command} --config.run.output={tmp_path}/out")
    logs = wait_for_end(job, tmp_path)
    shares = {(row["share"], row["status"]) for row in manifest(tmp_path / "out").rows()}
    assert shares == {("0/2", "failed"), ("1/2", "done")}, logs
    assert "4 done, 0 skipped, 0 failed" in logs and "0 done, 0 skipped, 4 failed" in logs, logs


TASK = """#!/bin/bash
echo $$ > {folder}/pid-$SLURM_PROCID
exec {python} "$@"
"""


def preempt(job: str, _):
    ask("scancel", "--signal=TERM", job)
    queued = lambda: "Restarts=1" in ask("scontrol", "-o", "show", "job", job)  # noqa: E731
    wait_until(queued, "the job is queued again")


def kill_task(job: str, tmp_path: Path):
    """As when a node dies."""
    os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)
    wait_until(lambda: state(job) == "FAILED", "the job has failed")
    requeue(job)


@pytest.mark.parametrize(("source", "disturb"), [(clips, kill_task), (rows, preempt)])
def test_two_tasks_make_each_video_on_one_mesh(tmp_path, source, disturb):
    """`run.hosts=together`, disturbed: the bytes of one process that has both devices."""
    command = f"{source(tmp_path)} --config.mesh.data=1 --config.mesh.seq=-1"
    whole, folder = tmp_path / "whole", tmp_path / "together"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_NUM_CPU_DEVICES", "2")
        complete(command, whole)
    task = tmp_path / "python"
    task.write_text(TASK.format(folder=tmp_path, python=sys.executable))
    task.chmod(0o755)
    own = {"PYTHON": str(task), "JAX_NUM_CPU_DEVICES": "1"}
    joined = f"{command.format(output=folder)} --config.run.hosts=together"
    job = submit(tmp_path, "--ntasks=2", command=joined, **own)
    wait_until(lambda: done_by(folder, "0/1") >= 2, "two videos are made")
    disturb(job, tmp_path)
    assert done_by(folder, "0/1") < COUNTS[source.__name__], "disturbed too late"
    logs = wait_for_end(job, tmp_path)
    assert re.search(r"[1-9]\d* already done", logs), logs
    check_equal(folder, whole)
    done = [row for row in manifest(folder).rows() if row["status"] == "done"]
    assert {row["devices"] for row in done} == {"2 x cpu"}
