"""A run killed with SIGKILL at random moments and resumed equals one that was not disturbed.

The commands under test are the fake mode and, marked slow, sampling with FDM.
"""

import contextlib
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_fdm

from jaxvid.runs.manifest import Manifest
from jaxvid.runs.requests import OWN_FILES
from jaxvid.runs.share import Share
from jaxvid.runs.staging import open_output

FAKE = Path(__file__).with_name("fake_mode.py")
COMMAND = f"{sys.executable} {FAKE} --requests=12 --batch_size=1 --seconds=0.06 --output={{output}}"
KILLS = 10


def start(command: str, output: Path, environment=os.environ) -> subprocess.Popen:
    """In a process group of its own, so that a kill also reaches children."""
    environ = {k: v for k, v in environment.items() if not k.startswith("SLURM_")}
    arguments = shlex.split(command.format(output=shlex.quote(str(output))))
    return subprocess.Popen(
        arguments,
        env=environ,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def complete(command: str, output: Path) -> float:
    """Runs to the end; returns the seconds from the first temporary file on."""
    process = start(command, output)
    wait_for_work(process, output)
    begin = time.monotonic()
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    return time.monotonic() - begin


def staging_folders(output: Path) -> set[str]:
    """As `rglob`, but folders may vanish meanwhile."""
    found = os.walk(output)
    return {f"{f}/{name}" for f, names, _ in found for name in names if name[:5] == ".unfi"}


def wait_for_work(process: subprocess.Popen, output: Path):
    """Returns when the process has made its staging folder, or has ended."""
    before = staging_folders(output)
    while process.poll() is None and staging_folders(output) <= before:
        time.sleep(0.002)


def outputs(folder: Path) -> dict[str, bytes]:
    """All files but the manifest and the page, which hold times."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in OWN_FILES)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def check_equal(folder: Path, undisturbed: Path):
    """Every output there once, complete and equal; no temporary left."""
    assert outputs(folder) == outputs(undisturbed)
    rows = manifest(folder).rows()
    ids = [row["id"] for row in rows if row["status"] == "done"]
    assert sorted(ids) == sorted(row["id"] for row in manifest(undisturbed).rows())
    for row in rows:
        for entry in row.get("outputs", {}).values():  # a row of a kill has none
            path = manifest(folder).path.parent / entry["file"]
            assert path.stat().st_size == entry["bytes"]


def manifest(folder: Path) -> Manifest:
    """The one anywhere under the folder; some modes name a subfolder after their settings."""
    (path,) = folder.rglob("manifest.jsonl")
    return Manifest(path.parent)


@pytest.mark.parametrize(
    ("mode", "span"), [("fake", 0.25), pytest.param("fdm", 0.6, marks=pytest.mark.slow)]
)
def test_killed_ten_times(tmp_path, mode, span):
    """Each life, at most `span` of an undisturbed run, is enough for about one of twelve requests.

    FDM loads and compiles before its first.
    """
    command = COMMAND if mode == "fake" else small_fdm.command(tmp_path)
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    if mode == "fdm":
        complete(command, tmp_path / "first")  # compiles, which the measured life does not
    seconds = complete(command, whole)
    rng, killed = random.Random(0), 0
    for _ in range(KILLS):
        process = start(command, disturbed)
        wait_for_work(process, disturbed)
        time.sleep(rng.uniform(0, span) * seconds)
        killed += process.poll() is None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert killed >= KILLS / 2, "most kills came too late"
    complete(command, disturbed)
    check_equal(disturbed, whole)


LONG = (
    f"{sys.executable} {FAKE} --requests=2 --batch_size=2 --frames=96 --chunk=4 --snapshots=2 "
    "--seconds={seconds} --output={{output}}"
)


def test_killed_in_the_middle_of_a_call(tmp_path):
    """It goes on at the newest snapshot, in .mp4, .npy and .json alike; also after a SIGTERM."""
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    complete(LONG.format(seconds=0), whole)
    for number in (signal.SIGKILL, signal.SIGTERM):
        before = newest_snapshot(disturbed)
        process = start(LONG.format(seconds=0.1), disturbed)
        while process.poll() is None and newest_snapshot(disturbed) < before + 2:
            time.sleep(0.002)
        os.killpg(process.pid, number)
        process.communicate()
        assert not list(disturbed.glob("clip_*")) and newest_snapshot(disturbed) >= before + 2
    process = start(LONG.format(seconds=0), disturbed)
    text, _ = process.communicate()
    assert "clip_0000: goes on where an earlier run was ended" in text
    check_equal(disturbed, whole)


def newest_snapshot(output: Path) -> int:
    notes = output.glob(".unfinished-halfway/*/step_*/jaxvid.json")
    return max((int(note.parent.name.removeprefix("step_")) for note in notes), default=0)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["--dark=9", "--resume=False"])
def test_what_cannot_be_gone_on_with_is_made_anew(tmp_path, change):
    command = LONG.format(seconds=0.1)
    process = start(command, tmp_path)
    while process.poll() is None and newest_snapshot(tmp_path) < 1:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    process = start(f"{LONG.format(seconds=0)} {change}", tmp_path)
    text, _ = process.communicate()
    assert "goes on" not in text and "2 done" in text
    assert not list(tmp_path.glob(".unfinished-*"))


POINTS = """
import os, signal, sys
sys.path[:0] = [{tests!r}]
import fake_mode
from jaxvid.runs import manifest, staging

def dies(function, before, count=[0]):
    def wrapped(*args, **kwargs):
        count[0] += 1
        if count[0] == {call} and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if count[0] == {call}:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return wrapped

def half(file, data):
    real(file, data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

real = manifest._write_all
if {point!r} == "torn row":
    manifest._write_all = half
elif {point!r} == "renames":
    os.replace = dies(os.replace, before=False)
elif {point!r} == "claim":
    os.fsync = dies(os.fsync, before=True)
else:
    manifest.Manifest.append = dies(manifest.Manifest.append, {point!r} == "before row")
fake_mode.main({flags!r}.split() + ["--output=" + sys.argv[1]])
"""

FLAGS = {
    "at once": "--requests=4 --batch_size=2 --seconds=0",
    "with snapshots": "--requests=4 --batch_size=2 --seconds=0 --snapshots=1",
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    found = {}
    for name, flags in FLAGS.items():
        found[name] = tmp_path_factory.mktemp("whole")
        complete(f"{sys.executable} {FAKE} {flags} --output={{output}}", found[name])
    return found


@pytest.mark.parametrize("point", ["torn row", "renames", "claim", "before row", "after row"])
@pytest.mark.parametrize(("call", "flags"), [(1, "at once"), (3, "at once"), (1, "with snapshots")])
def test_killed_at_the_worst_moments(tmp_path, undisturbed, point, call, flags):
    """Between two renames, between a rename and its row, within a row."""
    script = POINTS.format(tests=str(FAKE.parent), point=point, call=call, flags=FLAGS[flags])
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    complete(f"{sys.executable} {FAKE} {FLAGS[flags]} --output={{output}}", tmp_path)
    check_equal(tmp_path, undisturbed[flags])


HOLD = """
import sys, time
sys.path[:0] = [{root!r}]
from jaxvid.runs.share import Share
from jaxvid.runs.staging import open_output
with open_output(sys.argv[1], Share({index}, {count})) as (manifest, staging):
    staging.path(0, "a.npy").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """Starts processes that work on a share until they are killed."""
    running = []

    def hold(index, count):
        script = HOLD.format(root=str(FAKE.parents[1]), index=index, count=count)
        command = [sys.executable, "-c", script, str(tmp_path)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        assert running[-1].stdout.readline() == "ready\n"
        return running[-1]

    yield hold
    for process in running:
        process.kill()
        process.wait()


def temporaries(folder: Path) -> int:
    return len(list(folder.glob(".unfinished-*/*.npy")))


def test_living_neighbours_keep_their_temporaries(tmp_path, holder):
    holder(1, 3)
    dead = holder(0, 3)
    dead.kill()
    dead.wait()
    assert temporaries(tmp_path) == 2
    with open_output(tmp_path, Share(0, 3)):
        assert temporaries(tmp_path) == 1
    with pytest.raises(ValueError, match="is working on share 1/3"), open_output(tmp_path, Share()):
        pass
    assert temporaries(tmp_path) == 1


def test_other_hosts_are_touched_only_within_the_own_share(tmp_path, holder, monkeypatch):
    dead = holder(1, 2)
    dead.kill()
    dead.wait()
    monkeypatch.setattr("jaxvid.runs.staging._host", lambda: "another")
    with open_output(tmp_path, Share(0, 2)):
        assert temporaries(tmp_path) == 1
    with open_output(tmp_path, Share(3, 4)):
        assert temporaries(tmp_path) == 1
    with open_output(tmp_path, Share()):
        assert temporaries(tmp_path) == 0
