"""What goes wrong around the requests: kills in a row, disks, links, a page that cannot be made."""

import dataclasses
import errno
import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
from fake_mode import FakeConfig, FakeGenerator, fake_requests
from test_runs_at_scale import go

from jaxvid.core import video_parts
from jaxvid.runs import staging, writers
from jaxvid.runs.causes import KILLED
from jaxvid.runs.manifest import Manifest
from jaxvid.runs.share import Share
from jaxvid.runs.staging import open_output

FAKE = FakeConfig(requests=6, frames=4, size=16, chunk=4, seconds=0, batch_size=2)


def killed_over(folder, ids):
    """As a process that is killed leaves it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging.Staging, "remove", lambda self: os.close(self._lock))
        with open_output(folder, Share()) as (manifest, own):
            own.begin({id: {"seed": 0, "options": {}, "fingerprint": ""} for id in ids}, manifest)


def test_requests_that_are_killed_again_and_again_come_last_and_alone(tmp_path, capsys):
    calls = []

    class Remembers(FakeGenerator):
        def generate(self, requests):
            calls.append([request.id for request in requests])
            return super().generate(requests)

    for _ in range(2):
        killed_over(tmp_path, ["clip_0000", "clip_0001"])
    assert go(tmp_path, FAKE, generator=Remembers, fail_fast=True).done == 6
    assert calls[0] == ["clip_0000", "clip_0001"]  # twice may be chance
    calls.clear()
    for _ in range(3):
        killed_over(tmp_path, ["clip_0000", "clip_0001"])
    assert go(tmp_path, FAKE, generator=Remembers).done == 2
    assert calls == [["clip_0000"], ["clip_0001"]]
    assert "3 times in a row: they come last, each alone" in capsys.readouterr().out
    rows = Manifest(tmp_path).rows()
    assert sum(row.get("kind") == KILLED for row in rows) == 10


def test_one_claim_is_kept_however_many_are_done(tmp_path):
    """So that clearing up after a kill takes no longer in a long run."""
    with open_output(tmp_path, Share()) as (manifest, own):
        for number in range(5):
            path = own.path(number, "a.npy")
            np.save(path, np.zeros(3))
            row = {"id": f"clip_{number}", "status": "done"}
            own.commit(manifest, row, {path: f"{number}.npy"})
        claim = json.loads((own.folder / staging.CLAIM).read_text())
    assert claim["id"] == "clip_4"


def test_networks_that_do_not_fit_stop_the_run_in_one_line(tmp_path):
    def out_of_memory(fake):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")

    summary = go(tmp_path, FAKE, generator=out_of_memory)
    assert summary.exit_code == 4 and "RESOURCE_EXHAUSTED" in summary.stopped
    assert not summary.failures


def test_a_disk_that_fails_midway_stops_the_run_with_a_summary(tmp_path, monkeypatch):
    def append(self, row):
        raise OSError(errno.ESTALE, "Stale file handle", str(self.path))

    monkeypatch.setattr(Manifest, "append", append)
    summary = go(tmp_path, FAKE, gallery=False)
    assert summary.exit_code == 4 and "Stale file handle" in summary.stopped
    monkeypatch.undo()
    assert go(tmp_path, FAKE).done == 6


def test_a_full_disk_elsewhere_is_named(tmp_path):
    class FullCache(FakeGenerator):
        def generate(self, requests):
            raise OSError(errno.ENOSPC, "No space left on device", "/cache/prompt.npy")
            yield

    assert "/cache/prompt.npy" in go(tmp_path, FAKE, generator=FullCache).stopped


def test_events_that_cannot_be_written_are_done_without(tmp_path, capsys):
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    summary = go(tmp_path, FAKE)
    assert (summary.done, summary.exit_code) == (6, 0)
    assert capsys.readouterr().out.count("events cannot be written: No space left") == 1


LONG = FakeConfig(requests=3, frames=32, size=16, chunk=8, seconds=0, batch_size=1, snapshots=1)


def test_a_snapshot_never_tells_of_frames_that_were_not_written(tmp_path, monkeypatch):
    """The disk is full for a moment, while the generator already asks for the marks."""
    go(tmp_path / "whole", LONG)
    real, calls = writers.NpyWriter.write, []

    def write(self, frames):
        calls.append(len(frames))
        if len(calls) == 2:
            time.sleep(0.1)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, frames)

    monkeypatch.setattr(writers.NpyWriter, "write", write)
    assert go(tmp_path / "out", LONG).exit_code == 4
    assert go(tmp_path / "out", LONG).done == 3
    for path in (tmp_path / "whole").rglob("*.npy"):
        found = tmp_path / "out" / path.relative_to(tmp_path / "whole")
        assert found.read_bytes() == path.read_bytes()


def test_a_disk_too_full_for_a_snapshot_stops_the_run(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    summary = go(tmp_path, LONG)
    assert summary.exit_code == 4 and not summary.failures and "is full" in summary.stopped
    monkeypatch.undo()
    assert go(tmp_path, LONG).done == 3


def test_a_disk_full_at_the_end_of_a_call_loses_no_snapshot(tmp_path, monkeypatch, capsys):
    """The second video finds no room when it is put together."""
    go(tmp_path / "whole", LONG)
    real, calls = video_parts.join, []

    def join(parts, path):
        calls.append(path)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(parts, path)

    monkeypatch.setattr(video_parts, "join", join)
    assert go(tmp_path / "out", LONG).exit_code == 4
    assert go(tmp_path / "out", LONG).exit_code == 0
    assert "goes on where an earlier run was ended" in capsys.readouterr().out
    for path in (tmp_path / "whole").rglob("*.mp4"):
        found = tmp_path / "out" / path.relative_to(tmp_path / "whole")
        assert found.read_bytes() == path.read_bytes()


class Stops(FakeGenerator):
    """Told to end after its first snapshot."""

    def generate(self, requests):
        for number, item in enumerate(super().generate(requests)):
            if number == 12:
                os.kill(os.getpid(), signal.SIGTERM)
            yield item


def test_a_call_that_left_a_snapshot_stays_together_however_often_it_is_killed(tmp_path, capsys):
    fake, ids = dataclasses.replace(LONG, batch_size=3), [f"clip_000{n}" for n in range(3)]
    assert go(tmp_path, fake, generator=Stops).exit_code == 143
    for _ in range(3):
        killed_over(tmp_path, ids)
    assert go(tmp_path, fake).done == 3
    assert "goes on where an earlier run was ended" in capsys.readouterr().out


@pytest.mark.parametrize("fake", [FAKE, LONG])
def test_an_input_that_goes_away_meanwhile_fails_its_request(tmp_path, fake):
    requests = []
    for request in fake_requests(fake):
        path = tmp_path / f"{request.id}.bin"
        path.write_bytes(request.id.encode())
        requests.append(dataclasses.replace(request, inputs={"clip": str(path)}))

    class Removes(FakeGenerator):
        def __init__(self, fake):
            super().__init__(fake)
            (tmp_path / "clip_0002.bin").unlink()

    summary = go(tmp_path / "out", fake, requests, Removes)
    assert (summary.done, summary.exit_code) == (fake.requests - 1, 3)
    assert [id for id, _ in summary.failures] == ["clip_0002"]


def test_damaged_metrics_leave_the_run_done(tmp_path, capsys):
    (tmp_path / "metrics.json").write_text("{")
    summary = go(tmp_path, FAKE)
    assert summary.done == 6 and summary.exit_code == 0
    assert "gallery: not written" in capsys.readouterr().out


def test_outputs_do_not_leave_the_folder_through_a_link(tmp_path):
    elsewhere, output = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    output.mkdir()
    (output / "clip_0002").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="clip_0002 is a link, through which outputs would leave"):
        go(output, FAKE, requests=fake_requests(FAKE))
    assert not list(elsewhere.iterdir())
    (tmp_path / "link").symlink_to(elsewhere)
    assert go(tmp_path / "link", FAKE).done == 6


def test_a_limit_that_broken_inputs_reach_tells_the_way_out(tmp_path, capsys):
    requests = fake_requests(FAKE)
    requests[1] = dataclasses.replace(requests[1], error="prompt file is not JSON")
    for _ in range(2):
        summary = go(tmp_path, FAKE, requests, fail_fast=True)
        assert (summary.exit_code, summary.done) == (4, 0)
        out = capsys.readouterr().out
        assert "nothing was made: mend these, or leave them by --no-retry-failed" in out
    summary = go(tmp_path, FAKE, requests, fail_fast=True, retry_failed=False)
    assert (summary.exit_code, summary.done, summary.skipped) == (3, 5, 1)


def test_the_page_forgets_failures_that_are_no_longer_asked_for(tmp_path):
    requests = fake_requests(FAKE)
    outputs = {"samples": "twice/1.npy"}
    gone = dataclasses.replace(requests[1], id="twice/1", outputs=outputs, error="occurs twice")
    go(tmp_path, FAKE, [*requests, gone])
    assert "occurs twice" in (tmp_path / "index.html").read_text()
    go(tmp_path, FAKE, requests)
    assert "occurs twice" not in (tmp_path / "index.html").read_text()


def test_a_disk_that_fills_between_two_calls_costs_no_snapshot(tmp_path, monkeypatch, capsys):
    """The second call finds the disk full before it opens the files of its earlier life."""
    fake = dataclasses.replace(LONG, requests=2)
    requests = fake_requests(fake)
    assert go(tmp_path, fake, requests[1:], generator=Stops).exit_code == 143
    real = staging.Staging.commit

    def commit(self, *args, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(staging.Staging, "commit", commit)
    assert go(tmp_path, fake, requests).exit_code == 4
    monkeypatch.setattr(staging.Staging, "commit", real)
    capsys.readouterr()
    assert go(tmp_path, fake, requests).done == 2
    assert "clip_0001: goes on where an earlier run was ended" in capsys.readouterr().out
