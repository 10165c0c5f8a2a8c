"""What goes wrong around the requests: kills in a row, disks, links, a page that cannot be made."""

import errno
import json
import os

import numpy as np
import pytest
from fake_mode import FakeConfig, FakeGenerator, fake_requests
from test_runs_at_scale import go

from jaxvid.runs import staging
from jaxvid.runs.causes import KILLED
from jaxvid.runs.events import Events
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


def test_events_that_cannot_be_told_do_not_undo_a_result(tmp_path, monkeypatch):
    def done(self, row):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Events, "done", done)
    assert go(tmp_path, FAKE).exit_code == 4
    assert {row["status"] for row in Manifest(tmp_path).rows()} == {"done"}


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
