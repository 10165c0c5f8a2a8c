"""Many requests: overlap of stages, what is told on the way, kills, ten thousand at once."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_mode import FakeConfig, FakeGenerator, fake_requests, provenance

from jaxvid.runs import recorder
from jaxvid.runs.causes import INPUT, KILLED, MEMORY
from jaxvid.runs.config import RunConfig
from jaxvid.runs.fingerprint import InputHashes, fingerprint
from jaxvid.runs.manifest import Manifest
from jaxvid.runs.runner import run

FAKE = FakeConfig(requests=4, frames=2, size=16, seconds=0, batch_size=1)


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch):
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)


def go(folder, fake=FAKE, requests=None, generator=FakeGenerator, **flags):
    requests = fake_requests(fake) if requests is None else requests
    config = RunConfig(output=str(folder), **flags)
    return run(lambda _: generator(fake), requests, config, provenance(fake))


def events(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_reading_making_and_writing_overlap(tmp_path, monkeypatch):
    """With stages of equal length the run takes at most 1.2 times the longest of them."""
    second, real = 0.1, recorder.Recorder._finish

    def finish(self, job, seconds):
        time.sleep(second)
        real(self, job, seconds)

    monkeypatch.setattr(recorder.Recorder, "_finish", finish)
    fake = dataclasses.replace(FAKE, requests=20, seconds=second, read_seconds=second)
    requests = [
        dataclasses.replace(request, outputs={"samples": request.outputs["samples"]})
        for request in fake_requests(fake)
    ]
    summary = go(tmp_path, fake, requests, gallery=False)
    stages = [summary.seconds[name] for name in ("read", "generate", "write")]
    assert min(stages) > 19 * second, summary.seconds
    assert summary.seconds["total"] < 1.2 * max(stages), summary.seconds


class Unlucky(FakeGenerator):
    """Runs out of memory with request 1, cannot read the input of request 2."""

    def generate(self, requests):
        if requests[0].seed == 1:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 GiB")
        yield from super().generate(requests)


def test_events_tell_what_happens(tmp_path, capsys):
    requests = fake_requests(FAKE, {"clip": __file__})
    requests[2].inputs["clip"] = str(tmp_path / "gone.mp4")
    summary = go(tmp_path, requests=requests, generator=Unlucky)
    assert summary.exit_code == 3
    assert summary.kinds == {"clip_0001": MEMORY, "clip_0002": INPUT}
    found = events(tmp_path)
    assert {event["share"] for event in found} == {"0/1"}
    names = [event["event"] for event in found]
    assert names[0] == "start" and names[-1] == "end" and names.count("done") == 2
    assert (found[0]["todo"], found[0]["broken"], found[-1]["exit_code"]) == (3, 1, 3)
    failed = {event["id"]: event["kind"] for event in found if event["event"] == "failed"}
    assert failed == summary.kinds
    done = next(event for event in found if event["event"] == "done")
    assert {"read", "generate", "write"} <= done["seconds"].keys()
    text = capsys.readouterr().out
    assert "failed: clip_0001: out of memory: RuntimeError: RESOURCE_EXHAUSTED" in text
    assert "failed: clip_0002: bad input: input clip=" in text
    (tmp_path / "events.jsonl").open("a").write('{"half')  # as a kill leaves it
    go(tmp_path, requests=requests[:1])
    *_, half, start, end = (tmp_path / "events.jsonl").read_text().splitlines()
    assert half == '{"half' and json.loads(start)["skipped"] == 1 and json.loads(end)


def test_tensorboard_has_the_stages(tmp_path):
    go(tmp_path, tensorboard=True)
    (file,) = (tmp_path / "tensorboard" / "share-0-of-1").iterdir()
    for stage in (b"seconds/read", b"seconds/generate", b"seconds/write"):
        assert file.read_bytes().count(stage) == 4


DIES = """
import os, signal, sys
sys.path[:0] = [{tests!r}]
import test_runs_at_scale as scale

class Dying(scale.FakeGenerator):
    def generate(self, requests):
        if requests[0].seed == 2:
            while len(scale.Manifest(sys.argv[1]).rows()) < 2:
                scale.time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().generate(requests)

scale.go(scale.Path(sys.argv[1]), generator=Dying)
"""


def test_a_killed_process_is_told_of(tmp_path, capsys):
    script = DIES.format(tests=str(Path(__file__).parent))
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    summary = go(tmp_path, retry_failed=False)
    assert summary.exit_code == 0 and summary.done == 2 and summary.skipped == 2
    rows = [row for row in Manifest(tmp_path).rows() if row["status"] == "failed"]
    assert [(row["id"], row["kind"]) for row in rows] == [("clip_0002", KILLED)]
    assert "1 were being made when an earlier process was killed" in capsys.readouterr().out


def plain_requests(count: int, inputs: dict) -> list:
    """With one output and a prompt each."""
    requests = fake_requests(dataclasses.replace(FAKE, requests=count), inputs)
    for request in requests:
        del request.outputs["gif"], request.outputs["info"], request.outputs["video"]
        request.options["prompt"] = "A long prompt about a drive. " * 20
    return requests


def finished_folder(folder: Path, count: int):
    """An output folder in which so many requests with seven inputs are done; returns them."""
    inputs = {}
    for view in range(7):
        inputs[f"view{view}_control"] = str(folder / f"{view}.mp4")
        Path(inputs[f"view{view}_control"]).write_bytes(b"x")
    requests = plain_requests(count, inputs)
    hashes, rows = InputHashes(), []
    for request in requests:
        (folder / request.id).mkdir()
        for file in request.outputs.values():
            (folder / file).write_bytes(b"x")
        found = hashes.of_request(request)
        outputs = {n: {"file": f, "bytes": 1, "frames": 1} for n, f in request.outputs.items()}
        print_ = fingerprint(request, found, provenance(FAKE))
        row = {"id": request.id, "status": "done", "fingerprint": print_, "inputs": found}
        rows.append(row | {"options": request.options, "outputs": outputs, "seconds": {}})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return requests


RESUMES = """
import re, sys, time
sys.path[:0] = [{tests!r}]
import test_runs_at_scale as scale
inputs = {{f"view{{n}}_control": sys.argv[1] + f"/{{n}}.mp4" for n in range(7)}}
requests = scale.plain_requests(10_000, inputs)
start = time.process_time()
summary = scale.go(scale.Path(sys.argv[1]), requests=requests)
assert summary.skipped == 10_000 and summary.exit_code == 0, summary
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(time.process_time() - start, int(peak[1]) / 1024)
"""  # not ru_maxrss, which begins with what the process that forked had


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_ten_thousand_requests_resume_in_seconds(tmp_path):
    """Survey of files and manifest, and the page: under 5 s of this process, under 500 MB."""
    finished_folder(tmp_path, 10_000)
    script = RESUMES.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seconds, megabytes = map(float, done.stdout.split()[-2:])
    assert seconds < 5 and megabytes < 500, done.stdout
