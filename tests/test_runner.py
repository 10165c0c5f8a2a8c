"""Requests in, files and manifest rows out: resuming, isolating, stopping."""

import dataclasses
import errno
import os
import signal
import threading
import time

import numpy as np
import pytest
from fake_mode import FakeConfig, FakeGenerator, draw, fake_requests, provenance

from jaxvid.core.video import read_video
from jaxvid.runs import recorder, writers
from jaxvid.runs.config import RunConfig
from jaxvid.runs.manifest import Manifest
from jaxvid.runs.runner import run

QUICK = FakeConfig(requests=6, frames=6, size=16, chunk=4, seconds=0)


class Session:
    """Runs the fake mode in a folder and remembers the generators it loaded."""

    def __init__(self, output):
        self.output, self.generators, self.asked = output, [], []

    def __call__(self, fake=QUICK, requests=None, generator=FakeGenerator, **flags):
        requests = fake_requests(fake) if requests is None else requests

        def load(wanted):
            self.asked.append([request.id for request in wanted])
            self.generators.append(generator(fake))
            return self.generators[-1]

        config = RunConfig(output=str(self.output), **flags)
        return run(load, requests, config, provenance(fake))

    def made(self):
        """Ids in the last generator's calls."""
        return [id for call in self.generators[-1].calls for id in call]

    def rows(self):
        return Manifest(self.output).rows()

    def files(self):
        """All but the log of events, which every run prolongs."""
        found = (p for p in self.output.rglob("*") if p.is_file() and p.name != "events.jsonl")
        return {str(p.relative_to(self.output)): p.read_bytes() for p in found}

    def leftovers(self):
        return [name for name in os.listdir(self.output) if name.startswith(".")]


@pytest.fixture
def session(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    return Session(tmp_path / "out")


def test_outputs_hold_the_frames_and_rows_describe_them(session):
    summary = session()
    assert (summary.done, summary.skipped, summary.failures, summary.exit_code) == (6, 0, [], 0)
    request = fake_requests(QUICK)[3]
    frames = draw(request, QUICK)
    np.testing.assert_array_equal(np.load(session.output / "clip_0003/samples.npy"), frames)
    assert read_video(session.output / "clip_0003/video.mp4").shape == frames.shape
    assert read_video(session.output / "clip_0003/video.gif").shape == frames.shape
    row = Manifest(session.output).latest()["clip_0003"]
    assert row["status"] == "done" and row["seed"] == 3 and row["devices"] == "none"
    assert row["outputs"]["video"]["frames"] == 6
    assert {"read", "generate", "write", "batch"} == row["seconds"].keys()
    assert not session.leftovers()


def test_requests_are_batched_by_group_and_prefetched(session):
    requests = fake_requests(QUICK)
    for n in (0, 3):
        requests[n].options["frames"] = 4
    session(requests=requests, fake=dataclasses.replace(QUICK, batch_size=3))
    calls = session.generators[-1].calls
    assert calls == [
        ["clip_0000", "clip_0003"],
        ["clip_0001", "clip_0002", "clip_0004"],
        ["clip_0005"],
    ]
    assert session.generators[-1].prefetched == calls


def test_parameters_are_loaded_for_what_is_left(session):
    session(dataclasses.replace(QUICK, broken=("clip_0002", "clip_0004")))
    session(shard="0/2")
    assert session.asked == [[f"clip_{n:04}" for n in range(6)], ["clip_0002", "clip_0004"]]


def test_second_run_loads_nothing(session):
    session()
    before = session.files()
    summary = session()
    assert summary.skipped == 6 and summary.done == 0 and len(session.generators) == 1
    assert session.files() == before


def test_missing_or_resized_output_is_made_again(session):
    session()
    before = session.files()
    (session.output / "clip_0001/video.mp4").unlink()
    (session.output / "clip_0002/samples.npy").write_bytes(b"x")
    session()
    assert session.made() == ["clip_0001", "clip_0002"]
    after = session.files()
    assert {k: v for k, v in after.items() if "/" in k} == {
        k: v for k, v in before.items() if "/" in k
    }


def test_changed_settings_and_inputs_are_not_done(session, tmp_path):
    clip = tmp_path / "clip.bin"
    clip.write_bytes(b"one")
    requests = fake_requests(QUICK, inputs={"clip": str(clip)})
    session(requests=requests)
    os.utime(clip, (1, 1))  # only the date
    assert session(requests=requests).skipped == 6
    clip.write_bytes(b"two")
    assert session(requests=requests).done == 6
    changed = dataclasses.replace(QUICK, dark=1)
    assert session(requests=requests, fake=changed).done == 6


def test_resume_false_makes_everything_again(session):
    session()
    assert session(resume=False).done == 6


def test_files_from_elsewhere_are_kept_unless_told(session, capsys):
    path = session.output / "clip_0000/samples.npy"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"precious")
    summary = session()
    assert (summary.done, summary.skipped) == (5, 1) and path.read_bytes() == b"precious"
    assert "overwrite=True" in capsys.readouterr().out
    assert session(overwrite=True).done == 1 and path.read_bytes() != b"precious"


def test_one_bad_request_fails_alone(session, capsys):
    summary = session(dataclasses.replace(QUICK, broken=("clip_0002",)))
    assert summary.done == 5 and summary.exit_code == 3
    assert summary.failures == [("clip_0002", "RuntimeError: cannot draw clip_0002")]
    row = Manifest(session.output).latest()["clip_0002"]
    assert row["status"] == "failed" and "Traceback" in row["traceback"]
    assert not (session.output / "clip_0002").exists() and not session.leftovers()
    assert "failed: clip_0002: RuntimeError: cannot draw clip_0002" in capsys.readouterr().out
    assert session(retry_failed=False).exit_code == 3
    assert len(session.generators) == 1  # nothing left that may be tried
    assert session().done == 1


def test_failures_outside_the_generator_are_isolated(session, tmp_path):
    requests = fake_requests(QUICK, inputs={"clip": str(tmp_path / "clip")})
    (tmp_path / "clip").write_bytes(b"x")
    requests[0].inputs["clip"] = str(tmp_path / "gone")
    requests[1] = dataclasses.replace(requests[1], error="prompt file is not JSON")
    requests[2].outputs["extra"] = "clip_0002/extra.npy"  # which the mode does not make
    requests[3].inputs["clip"] = str(tmp_path)
    summary = session(requests=requests)
    causes = dict(summary.failures)
    assert summary.done == 2 and causes.keys() == {r.id for r in requests[:4]}
    assert "no such file" in causes["clip_0000"]
    assert causes["clip_0001"] == "prompt file is not JSON"
    assert "no frames for extra" in causes["clip_0002"]
    assert "not a file" in causes["clip_0003"]


class TwoSizes(FakeGenerator):
    def generate(self, requests):
        for chunk in super().generate(requests):
            bad = getattr(chunk, "name", "") == "samples" and requests[chunk.index].seed == 1
            yield chunk._replace(frames=chunk.frames[:, : 4 + len(chunk.frames)]) if bad else chunk


def test_frames_that_cannot_be_written_fail_their_request(session):
    summary = session(generator=TwoSizes)
    assert summary.done == 5
    ((id, cause),) = summary.failures
    assert id == "clip_0001" and "after ones of" in cause
    assert not (session.output / "clip_0001").exists() and not session.leftovers()


@pytest.mark.parametrize("flags, failed", [({"fail_fast": True}, 1), ({"max_failures": 2}, 2)])
def test_failure_limits(session, flags, failed):
    fake = dataclasses.replace(QUICK, broken=tuple(f"clip_000{n}" for n in (0, 2, 3)))
    summary = session(fake, **flags)
    assert len(summary.failures) == failed and summary.exit_code == 4 and summary.stopped
    assert session().exit_code == 0 and len(Manifest(session.output).latest()) == 6


def test_full_disk_stops_cleanly(session, monkeypatch):
    real = writers.NpyWriter.write
    written = []

    def write(self, frames):
        written.append(len(frames))
        if len(written) > 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, frames)

    monkeypatch.setattr(writers.NpyWriter, "write", write)
    summary = session(dataclasses.replace(QUICK, batch_size=1))
    assert summary.exit_code == 4 and "full" in summary.stopped and summary.done == 3
    assert not session.leftovers() and not summary.failures
    assert sorted(p.name for p in session.output.glob("clip*")) == [
        f"clip_000{n}" for n in range(3)
    ]
    monkeypatch.undo()
    assert session().done == 3


def test_disk_full_at_the_manifest_leaves_no_half_row(session, monkeypatch):
    session(requests=fake_requests(QUICK)[:1])
    before = session.files()
    real = os.write

    def write(file, data):
        if data.startswith(b'{"id"'):
            real(file, data[:20])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data)

    monkeypatch.setattr(os, "write", write)
    summary = session(gallery=False)
    monkeypatch.undo()
    assert summary.exit_code == 4 and session.files() == before
    assert session().done == 5


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_stop_cleanly(session, number, code):
    class Stopping(FakeGenerator):
        def generate(self, requests):
            for count, item in enumerate(super().generate(requests)):
                if self.calls[-1] == ["clip_0002"] and count == 2:
                    os.kill(os.getpid(), number)
                yield item

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    summary = session(dataclasses.replace(QUICK, batch_size=1), generator=Stopping)
    assert summary.exit_code == code and summary.done == 2 and not session.leftovers()
    assert handlers == (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    assert session().done == 4


def test_output_that_is_a_file(session):
    session.output.write_bytes(b"")
    with pytest.raises(ValueError, match="is, or lies under, a file"):
        session()
    session.output /= "deeper"
    with pytest.raises(ValueError, match="is, or lies under, a file"):
        session()
    assert not session.generators


def test_read_only_output(session):
    session.output.mkdir()
    os.chmod(session.output, 0o500)
    if os.access(session.output, os.W_OK):
        session.output = type(session.output)("/proc/jaxvid")  # root may write anywhere else
    with pytest.raises(ValueError, match="cannot write to output="):
        session()
    assert not session.generators


def test_full_disk_is_noticed_before_loading(session, monkeypatch):
    def mkdir(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(session.output), "mkdir", mkdir)
    with pytest.raises(ValueError, match="the disk is full"):
        session()
    assert not session.generators


def test_writing_overlaps_generating(session, monkeypatch):
    """Five batches of equal generating and writing time take about six times, not ten."""
    real = recorder.Recorder._finish

    def finish(self, job, seconds):
        time.sleep(0.2)
        real(self, job, seconds)

    monkeypatch.setattr(recorder.Recorder, "_finish", finish)
    requests = fake_requests(dataclasses.replace(QUICK, requests=5))
    requests = [dataclasses.replace(r, outputs={"samples": r.outputs["samples"]}) for r in requests]
    fake = dataclasses.replace(QUICK, batch_size=1, seconds=0.1)  # two chunks each
    summary = session(fake, requests, gallery=False)
    assert summary.seconds["generate"] > 0.9 and summary.seconds["write"] > 0.9
    assert summary.seconds["total"] < 1.7


def test_shares_divide_the_requests(session):
    for index in (2, 0, 1):
        session(shard=f"{index}/3")
    assert sorted(row["id"] for row in session.rows()) == [r.id for r in fake_requests(QUICK)]
    assert session().skipped == 6


def test_torn_manifest_line_is_ignored_and_repaired(session):
    session()
    manifest = Manifest(session.output)
    whole = manifest.path.read_bytes()
    for cut in (1, 10, 300):
        manifest.path.write_bytes(whole + whole[: cut + 1])
        assert len(manifest.rows()) == 6
        manifest.append({"id": "new", "status": "done"})
        assert len(manifest.rows()) == 7 and manifest.path.read_bytes().startswith(whole)
    manifest.path.write_bytes(whole[:-1])  # a row without its newline may not be all of it
    assert len(manifest.rows()) == 5


def test_damaged_manifest_line_is_named(session):
    session()
    path = Manifest(session.output).path
    path.write_bytes(b"\x00\x00\n" + path.read_bytes())
    with pytest.raises(ValueError, match="line 1 is damaged"):
        session()


def test_many_writers_share_a_manifest(tmp_path):
    manifest = Manifest(tmp_path)
    row = {"status": "done", "text": "x" * 5000}
    write = lambda n: [manifest.append({"id": f"{n}-{i}", **row}) for i in range(20)]  # noqa: E731
    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(manifest.latest()) == 80
