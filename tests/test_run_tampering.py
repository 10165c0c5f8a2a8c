"""What users and other programs change behind the back of a run."""

import dataclasses

import pytest
from fake_mode import FakeConfig, FakeGenerator, fake_requests
from test_kill_resume import outputs
from test_run_troubles import Stops, killed_over
from test_runs_at_scale import go

from jaxvid.runs.manifest import Manifest

FAKE = FakeConfig(requests=4, frames=4, size=16, chunk=4, seconds=0, batch_size=1)
LONG = dataclasses.replace(FAKE, requests=2, frames=32, chunk=8, batch_size=2, snapshots=1)


@pytest.mark.parametrize("change", ["shorter", "gone"])
@pytest.mark.parametrize("suffix", [".npy", ".mp4"])
def test_files_that_are_not_what_they_were_are_begun_anew(tmp_path, capsys, suffix, change):
    go(tmp_path / "whole", LONG)
    assert go(tmp_path / "out", LONG, generator=Stops).exit_code == 143
    path = next((tmp_path / "out").glob(f".unfinished-halfway/*/*{suffix}"))
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:50])
    assert go(tmp_path / "out", LONG).done == 2
    assert "clip_0000: begun anew" in capsys.readouterr().out
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_an_input_that_is_replaced_meanwhile_fails_its_request(tmp_path):
    """It was read ahead; a result under the name of the new one would be wrong."""
    requests = []
    for request in fake_requests(FAKE):
        path = tmp_path / f"{request.id}.bin"
        path.write_bytes(b"old")
        requests.append(dataclasses.replace(request, inputs={"clip": str(path)}))

    class Replaces(FakeGenerator):
        def prefetch(self, requests):
            super().prefetch(requests)
            if requests[0].id == "clip_0002":
                (tmp_path / "clip_0002.bin").write_bytes(b"newer")

    summary = go(tmp_path / "out", FAKE, requests, Replaces)
    (failure,) = summary.failures
    assert failure[0] == "clip_0002" and "it changed while it was used" in failure[1]
    assert go(tmp_path / "out", FAKE, requests).done == 1


def test_a_manifest_that_was_edited_after_a_kill(tmp_path):
    go(tmp_path, FAKE)
    killed_over(tmp_path, ["clip_0003"])
    path = Manifest(tmp_path).path
    path.write_bytes(path.read_bytes().partition(b"\n")[2])
    assert go(tmp_path, FAKE, overwrite=True).exit_code == 0
    assert len(Manifest(tmp_path).latest()) == 4


@pytest.mark.parametrize("line", [b"5", b"[]", b"null", b"{}"])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    go(tmp_path, FAKE)
    path = Manifest(tmp_path).path
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match=r"line 5 is damaged \(it is no row of a run\); remove it"):
        go(tmp_path, FAKE)


def test_a_row_that_was_cut_down_is_made_again(tmp_path):
    go(tmp_path, FAKE)
    manifest = Manifest(tmp_path)
    manifest.append({"id": "clip_0001", "status": "done"})
    rows = manifest.rows()
    manifest.append({key: rows[2][key] for key in ("id", "status", "fingerprint")})
    assert go(tmp_path, FAKE).done == 2


def test_an_output_folder_that_is_moved_away_stops_the_run(tmp_path):
    class Moves(FakeGenerator):
        def generate(self, requests):
            if requests[0].id == "clip_0002":
                (tmp_path / "out").rename(tmp_path / "elsewhere")
            yield from super().generate(requests)

    summary = go(tmp_path / "out", FAKE, generator=Moves, gallery=False)
    assert summary.exit_code == 4
    (tmp_path / "elsewhere").rename(tmp_path / "back")
    assert go(tmp_path / "back", FAKE).exit_code == 0
    assert len(Manifest(tmp_path / "back").latest()) == 4
