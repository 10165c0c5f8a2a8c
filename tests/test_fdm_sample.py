"""FDM sampling through the runner's interface: devices, batches, noise, windows."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_params

from jaxvid.core.mesh import MeshConfig
from jaxvid.core.noise import request_key
from jaxvid.data.sources import DataConfig, open_source
from jaxvid.fdm import cost, sample, sampler
from jaxvid.fdm import requests as listing
from jaxvid.fdm.model import Model, abstract_parameters, load_model, network, save_model
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.sample_config import SampleConfig, Settings
from jaxvid.fdm.scheme import Step
from jaxvid.fdm.unet import Frames, UNetConfig
from jaxvid.runs.requests import Chunk

NETWORK = UNetConfig(image_size=16, channels=32, channel_mult=(1, 1), attention_at=(2,))
SAMPLING = SampleConfig(scheme="hierarchy-2", n_obs=4, num_samples=2, respacing="4", video="none")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random model none of whose layers is zero."""
    params = random_params.everywhere(abstract_parameters(NETWORK), 0.05)
    path = tmp_path_factory.mktemp("model") / "checkpoint"
    save_model(path, Model(NETWORK, DiffusionConfig(), params, {"max_frames": 6}, 3))
    return path


def settings(checkpoint, devices=1, **sampling) -> Settings:
    changed = dataclasses.replace(SAMPLING, **sampling)
    return Settings(
        checkpoint=str(checkpoint),
        network=NETWORK,
        diffusion=DiffusionConfig(respacing=changed.respacing),
        arguments={"max_frames": 6},
        step=3,
        data=DataConfig(name="maze_walk", frames=12, size=16, test_videos=3),
        sampling=changed,
        mesh=MeshConfig(data=devices),
        T=12,
        max_frames=6,
        step_size=3,
    )


def run(config: Settings, monkeypatch, devices: int) -> dict[str, np.ndarray]:
    """All samples of all videos by request id."""
    every = jax.devices()
    monkeypatch.setattr(jax, "local_devices", lambda *_: every[:devices])
    generator = sample.load(config)
    requests = listing.requests(config)
    found = {}
    for start in range(0, len(requests), generator.batch_size):
        batch = requests[start : start + generator.batch_size]
        for item in generator.generate(batch):
            if isinstance(item, Chunk):
                found[batch[item.index].id] = item.frames
    monkeypatch.undo()
    return found


@pytest.fixture(scope="module")
def alone(checkpoint):
    """Every request sampled alone on one device."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        return run(settings(checkpoint, batch_size=1), monkeypatch, 1)


@pytest.mark.parametrize(
    ("devices", "batch"), [pytest.param(1, 4, marks=pytest.mark.slow), (2, 3), (8, 8)]
)
def test_same_videos_on_any_devices_and_in_any_batch(
    checkpoint, alone, monkeypatch, devices, batch
):
    found = run(settings(checkpoint, devices, batch_size=batch), monkeypatch, devices)
    assert found.keys() == alone.keys()
    for name, video in found.items():
        # The noise is equal to the bit; sums in other orders move a pixel by at most one level.
        difference = np.abs(video.astype(int) - alone[name].astype(int))
        assert difference.max() <= 1, name
        assert (difference > 0).mean() < 0.01


def test_samples_differ_and_keep_observed_frames(checkpoint, alone):
    config = settings(checkpoint)
    source = open_source(config.data, "test")
    first, second = alone["sample_0001-0"], alone["sample_0001-1"]
    truth = source[1].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(first[:4], truth[:4])
    np.testing.assert_array_equal(second[:4], truth[:4])
    assert np.abs(first[4:].astype(int) - second[4:].astype(int)).max() > 1


def test_noise_depends_on_seed_and_id_only():
    one = sampler.call_noise(request_key(0, "a")[None], 3, (2, 4, 4, 3))
    keys = jnp.stack([request_key(0, name) for name in ("b", "a", "c")])
    many = sampler.call_noise(keys, 3, (2, 4, 4, 3))
    np.testing.assert_array_equal(one(5)[0], many(5)[1])
    assert not np.array_equal(many(5)[0], many(5)[1])
    assert not np.array_equal(
        one(5), sampler.call_noise(request_key(1, "a")[None], 3, (2, 4, 4, 3))(5)
    )


def test_padding_to_a_static_size_changes_nothing(checkpoint):
    params = load_model(checkpoint).params
    x, x0 = jax.random.normal(jax.random.key(0), (2, 1, 7, 16, 16, 3))
    short = sampler.make_window(Step([0, 3], [4, 5, 9]), 5, 1)
    padded = sampler.make_window(Step([0, 3], [4, 5, 9]), 7, 1)
    times = jnp.full(1, 300.0)
    call = jax.jit(functools.partial(network, NETWORK))
    out = call(params, x[:, :5], x0[:, :5], times, to_jax(short))
    wide = call(params, x, x0, times, to_jax(padded))
    np.testing.assert_allclose(wide[:, :5], out, atol=2e-5)  # float32; sums in another order


def to_jax(frames: Frames) -> Frames:
    return jax.tree.map(jnp.asarray, frames)


def test_windows_of_adaptive_schemes_differ_by_video():
    shared = sampler.make_window(Step([[0, 1], [0, 1]], [2]), 4, 2)
    assert shared.indices.tolist() == [[0, 1, 2, 2]]
    own = sampler.make_window(Step([[0, 1], [1, 0]], [2]), 4, 2)
    assert own.indices.tolist() == [[0, 1, 2, 2], [1, 0, 2, 2]]
    assert own.real.tolist() == [[1, 1, 1, 0]] * 2


def test_scatter_writes_latent_frames_only():
    videos = jnp.zeros((2, 5, 1, 1, 1))
    frames = to_jax(sampler.make_window(Step([0], [3, 2]), 5, 2))
    found = jnp.arange(1.0, 6.0).reshape(1, 5, 1, 1, 1).repeat(2, 0)
    out = sampler.scatter_latent(videos, found, frames)
    assert out[:, :, 0, 0, 0].tolist() == [[0, 0, 3, 2, 0]] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_obs": 12}, "n_obs=12"),
        ({"scheme": "hierachy-2"}, "hierarchy-2"),
        ({"scheme": "hierarchy-2", "n_obs": 40}, "n_obs=40"),
        ({"respacing": "5000"}, "5000"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_loaded(checkpoint, changes, message):
    with pytest.raises(ValueError, match=message):
        settings(checkpoint, **changes)


def test_a_plan_counts_what_can_be_made_and_traces_the_network_once(checkpoint):
    config = settings(checkpoint, devices=8)
    wanted = listing.requests(config)
    whole = cost.plan(config, wanted)
    traced = cost.evaluation_flops.cache_info().misses
    broken = [dataclasses.replace(wanted[0], error="damaged"), *wanted[1:]]
    assert cost.plan(config, broken).flops == whole.flops * 5 / 6 > 0
    assert cost.evaluation_flops.cache_info().misses == traced


def test_all_calls_share_one_compilation(checkpoint):
    generator = sample.load(settings(checkpoint, devices=8))
    requests = listing.requests(generator.settings)
    list(generator.generate(requests[:2]))
    list(generator.generate(requests[2:6]))
    assert generator._complete._cache_size() == 1


def test_goal_frames_stay_though_a_window_runs_over_them(checkpoint, monkeypatch):
    config = settings(checkpoint, scheme="goal-directed-mixed", num_samples=1, indices=(0,))
    given = config.given_frames()
    assert any(given & set(step.latent) for step in config.steps())
    found = run(config, monkeypatch, 1)["sample_0000-0"]
    truth = open_source(config.data, "test")[0].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(found[sorted(given)], truth[sorted(given)])


def test_what_does_not_change_samples_is_not_in_their_fingerprint(checkpoint):
    def found(**changes):
        return listing.result_settings(settings(checkpoint, **changes))

    assert found() == found(batch_size=2, step_size=3, max_frames=6, lpips="elsewhere", batch=0)
    assert found() != found(n_obs=3) and found() != found(clip=False)
    pixels = found(scheme="adaptive-autoreg", distance="pixels")
    with pytest.raises(ValueError, match="elsewhere"):  # their contents count
        found(scheme="adaptive-autoreg", lpips="elsewhere")
    assert pixels["distance"] == "pixels"


def test_upstreams_faults_end_before_anything_is_loaded(checkpoint):
    settings(checkpoint, scheme="adaptive-autoreg", upstream_faults=True)
    with pytest.raises(ValueError, match="upstream's 'autoreg' makes no frame"):
        settings(checkpoint, scheme="autoreg", n_obs=12, upstream_faults=True)
