"""Parts of a run that need no generator: shares, requests, writers, plan."""

import dataclasses
import json

import numpy as np
import pytest
from fake_mode import FakeConfig, fake_requests

from jaxvid.core.video import read_video
from jaxvid.runs import flags, writers
from jaxvid.runs.config import RunConfig
from jaxvid.runs.flags import run_overrides
from jaxvid.runs.halfway import Halfway
from jaxvid.runs.plan import Frames, Plan
from jaxvid.runs.requests import Request, check_requests
from jaxvid.runs.share import Share, this_share

QUICK = FakeConfig(requests=6, frames=6, size=16, chunk=4, seconds=0)


def test_share_of_slurm_arrays_and_processes():
    array = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "9"}
    array |= {"SLURM_ARRAY_TASK_STEP": "2", "SLURM_ARRAY_TASK_COUNT": "4"}
    assert this_share(environ=array) == Share(2, 4)
    assert this_share("1/2", environ=array) == Share(1, 2)
    assert this_share("1/2", (2, 3), {}) == Share(5, 6)
    assert this_share(environ={}) == Share(0, 1)
    with pytest.raises(ValueError, match="--shard=i/n"):
        this_share(environ=array | {"SLURM_ARRAY_TASK_COUNT": "3"})
    for wrong in ("2/2", "x", "1", "-1/2", "0/0"):
        with pytest.raises(ValueError, match="shard="):
            this_share(wrong, environ={})


def test_share_algebra():
    for a in [Share(i, n) for n in (1, 2, 3, 4, 6) for i in range(n)]:
        for b in [Share(i, n) for n in (1, 2, 3, 4, 6) for i in range(n)]:
            mine, theirs = set(a.select(range(24))), set(b.select(range(24)))
            assert a.covers(b) == (theirs <= mine)
            assert a.overlaps(b) == bool(mine & theirs)


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": "../x"},
        {"id": "/x"},
        {"id": "a//b"},
        {"id": "a\nb"},
        {"id": "a/" + "x" * 300},
        {"id": ".unfinished-1"},
        {"id": "clip_0001"},
        {"outputs": {}},
        {"outputs": {"v": "../v.mp4"}},
        {"outputs": {"v": "v.exe"}},
        {"outputs": {"v": "manifest.jsonl"}},
        {"outputs": {"v": "clip_0001/samples.npy"}},
        {"outputs": {"v": "clip_0001/samples.npy/x.npy"}},
        {"options": {}},
    ],
)
def test_unsafe_or_colliding_requests(change):
    requests = fake_requests(QUICK)
    check_requests(requests)
    requests[0] = dataclasses.replace(requests[0], **change)
    with pytest.raises(ValueError) as error:
        check_requests(requests)
    assert len(str(error.value).splitlines()) == 1


def test_npy_writer_writes_what_numpy_writes(tmp_path):
    for shape in ((12345, 3), (7,), (3, 2, 2)):
        array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        writer = writers.NpyWriter(tmp_path / "a.npy")
        for part in np.array_split(array, 3):
            writer.write(part)
        writer.close()
        np.save(tmp_path / "b.npy", array)
        assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_png_and_json_writers(tmp_path):
    image = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    writer = writers.open_writer(tmp_path / "a.png", {})
    writer.write(image)
    with pytest.raises(ValueError, match="one chunk"):
        writer.write(image)
    writer.close()
    np.testing.assert_array_equal(read_video(tmp_path / "a.png"), image)
    writer = writers.open_writer(tmp_path / "a.json", {})
    with pytest.raises(ValueError, match="nothing"):
        writer.close()
    writer.write({"a": [1, 2]})
    writer.close()
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, 2]}


def test_plan_lines():
    frames = (Frames("a", 10, 9, 9, "9 = 4 * 2 + 1"), Frames("b", 8, 8, 8), Frames("c", 8, 8, 8))
    lines = Plan(frames, 2.5e12, 3 << 30, 2 << 30, compilations=1, tokens=4096).lines()
    assert lines == [
        "a: 10 frames asked, 9 rounded, 9 produced (9 = 4 * 2 + 1)",
        "2 requests (b ... c): 8 frames asked, 8 rounded, 8 produced",
        "2.5 TFLOP, 4.1 k tokens, 1 compilation",
        "memory per device: 3.00 GiB needed, 2.00 GiB available: DOES NOT FIT",
    ]


def test_short_flags():
    assert run_overrides(["--config=x", "--fail-fast", "--max-failures", "3", "--shard=0/2"]) == [
        *("--config=x", "--config.run.fail_fast=True", "--config.run.max_failures=3"),
        "--config.run.shard=0/2",
    ]
    with pytest.raises(ValueError, match="no value"):
        run_overrides(["--max-failures"])
    for text in flags.SWITCHES.values():
        assert hasattr(RunConfig, text.removeprefix("run.").partition("=")[0])


def test_run_config_checks():
    with pytest.raises(ValueError, match=r"run\.output is empty"):
        RunConfig()
    with pytest.raises(ValueError, match="negative"):
        RunConfig(output="x", max_failures=-1)


def test_snapshots_of_batches_of_another_size_are_left_alone(tmp_path):
    requests = fake_requests(QUICK)[:2]
    two, again, four = (Halfway(tmp_path, requests, ["a", "b"], size) for size in (2, 2, 4))
    assert two.folder == again.folder != four.folder


def test_request_is_plain_data():
    request = Request("a", 0, {"v": "a/v.npy"})
    assert request.inputs == {} and request.options == {} and not request.error
