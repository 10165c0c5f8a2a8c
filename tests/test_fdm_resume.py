"""A killed run of FDM goes on in the middle of a video, and ends with the same bytes."""

import os
import signal
import time

import jax
import numpy as np
import pytest
import small_fdm
from test_kill_resume import check_equal, complete, newest_snapshot, start

from jaxvid.core.mesh import MeshConfig
from jaxvid.data.sources import DataConfig
from jaxvid.fdm import requests as listing
from jaxvid.fdm import sample
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.sample_config import SampleConfig, Settings
from jaxvid.runs.halfway import Halfway
from jaxvid.runs.requests import Chunk, Snapshot
from jaxvid.runs.together import begin

ADAPTIVE = {"distance": "pixels"}


def settings(**sampling) -> Settings:
    """Three videos of 16 frames, 4 of them made in a call of 4 evaluations."""
    return Settings(
        checkpoint="",
        network=small_fdm.NETWORK,
        diffusion=DiffusionConfig(respacing="4"),
        arguments={},
        step=1,
        data=DataConfig(name="maze_walk", frames=16, size=16, test_videos=3),
        sampling=SampleConfig(batch_size=4, video_size=16, **{"n_obs": 4} | sampling),
        mesh=MeshConfig(),
        T=16,
        max_frames=8,
        step_size=4,
        output="unused",
    )


@pytest.fixture
def load(monkeypatch):
    """Makes generators on two devices."""
    small_fdm.replace_network(monkeypatch)
    devices = jax.devices()[:2]
    monkeypatch.setattr(jax, "local_devices", lambda *_: devices)
    return sample.load


@pytest.mark.parametrize(
    "changes",
    [
        {"scheme": "hierarchy-2+refine", "video": "gif"},
        {"scheme": "goal-directed-mixed", "checkpoint_evaluations": 5},  # every other call
        {"scheme": "adaptive-autoreg", "n_obs": 0, **ADAPTIVE},
        {"scheme": "adaptive-hierarchy-2+refine", **ADAPTIVE},
    ],
)
def test_stopped_after_every_snapshot(tmp_path, load, changes):
    config = settings(**{"checkpoint_evaluations": 4, **changes})
    batch = listing.requests(config)
    whole = [item for item in load(config).generate(batch) if isinstance(item, Chunk)]
    halfway, step, lives = Halfway(tmp_path, batch, ["a"] * 3, 4), 0, 0
    items = [None]
    while not isinstance(items[-1], Chunk):
        generator, items = load(config), []
        assert generator.resumable(batch)
        for item in begin(generator, batch, halfway, step):
            items.append(item)
            if isinstance(item, Snapshot):
                step += 1
                halfway.save(step, item)
                break
        lives += 1
    assert lives == -(-len(config.steps()) // config.checkpoint_calls) > 1
    chunks = [item for item in items if isinstance(item, Chunk)]
    assert [item[:2] for item in chunks] == [item[:2] for item in whole]
    for found, wanted in zip(chunks, whole, strict=True):
        np.testing.assert_array_equal(found.frames, wanted.frames)


def test_short_videos_and_those_told_so_leave_nothing(load):
    for evaluations in (0, 3000):
        config = settings(checkpoint_evaluations=evaluations)
        batch = listing.requests(config)
        generator = load(config)
        assert not generator.resumable(batch)
        assert not any(isinstance(item, Snapshot) for item in generator.generate(batch))
    results = [listing.result_settings(settings(checkpoint_evaluations=n)) for n in (0, 4)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_killed_twice_in_the_middle_of_a_video(tmp_path):
    """SIGKILL at the second snapshot of a life, then two snapshots on."""
    flags = "--config.data.test_videos=2 --config.data.frames=22 --config.sampling.batch_size=2"
    command = f"{small_fdm.command(tmp_path)} {flags}"
    often = f"{command} --config.sampling.checkpoint_evaluations=25"
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    complete(command, whole)
    for _ in range(2):
        before = newest_snapshot(disturbed)
        process = start(often, disturbed)
        while process.poll() is None and newest_snapshot(disturbed) < before + 2:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert newest_snapshot(disturbed) >= before + 2
    process = start(often, disturbed)
    text, _ = process.communicate()
    assert "sample_0000-0: goes on where an earlier run was ended" in text
    check_equal(disturbed, whole)
