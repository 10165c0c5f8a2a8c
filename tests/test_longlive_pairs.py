"""ODE pairs for LongLive: made, kept apart, read from upstream, trained on."""

import dataclasses
import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import script
from small_longlive_train import config_of, log

from jaxvid.longlive import ode_pairs
from jaxvid.longlive.ode_pairs import Pairs, PairsConfig
from jaxvid.longlive.pair_making import origin
from jaxvid.longlive.train_setup import training_setup

pytestmark = pytest.mark.usefixtures("at_root")


def test_points_of_a_straight_way(tmp_path):
    """Along the exact flow to one clean video all points lie on a line, at the levels trained."""
    clean, noise = np.full((1, 2, 1, 1, 1), 3.0), np.ones((1, 2, 1, 1, 1))
    how, steps = PairsConfig(steps=48), (1000, 750, 500, 250)

    def velocity(x, timestep):
        exact = (x - clean) / (timestep / 1000)
        return exact, exact + 1e-4

    path = ode_pairs.trajectory(velocity, how, jnp.asarray(noise), steps)
    sigmas = np.array([1, 0.96, 8 / 9, 8 / 11, 0])
    sigmas = sigmas[:, None, None, None, None]
    line = sigmas * noise + (1 - sigmas) * clean
    np.testing.assert_allclose(path, line[None], atol=2e-3)  # the guidance adds 5e-4
    ode_pairs.write_note(tmp_path, how, steps, {"seed": 0})
    ode_pairs.write_pair(tmp_path / "000000.npz", path[0], "a prompt")
    ode_pairs.write_pair(tmp_path / "000001.npz", path[0, :, :1], "of another run")
    pairs = Pairs(str(tmp_path), steps, 8.0, (2, 1, 1, 1))
    assert pairs.prompts(0) == ("a prompt",)
    np.testing.assert_allclose(pairs[0], path[0], rtol=1e-3)
    for other, message in (
        (((1000, 500), 8.0, (2, 1, 1, 1)), "step_list"),
        ((steps, 5.0, (2, 1, 1, 1)), "shift=8.0"),
        ((steps, 8.0, (4, 1, 1, 1)), r"latents \(5, 2, 1, 1, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            Pairs(str(tmp_path), *other)
    with pytest.raises(ValueError, match=r"in pair 000001\.npz, the training is for"):
        pairs[1]
    for config, seed, message in ((PairsConfig(24), 0, "steps"), (how, 1, "seed")):
        with pytest.raises(ValueError, match=f"other settings: {message}, see"):
            ode_pairs.write_note(tmp_path, config, steps, {"seed": seed})


def test_pairs_of_other_prompts_or_networks_are_not_taken(tmp_path):
    setup = training_setup(config_of("ode", tmp_path / "run"))
    known = origin(setup, ["a", "b"])
    changes = {
        "negative_prompt": {"data": dataclasses.replace(setup.data, negative_prompt="dark")},
        "shape": {"data": dataclasses.replace(setup.data, height=32)},
        "transformer": {"models": dataclasses.replace(setup.models, random_seed=1)},
        "seed": {"train": dataclasses.replace(setup.train, seed=1)},
    }
    for name, change in changes.items():
        assert origin(dataclasses.replace(setup, **change), ["a", "b"])[name] != known[name]
    assert origin(setup, ["a", "c"])["prompts"] != known["prompts"]


def test_pairs_of_upstream(tmp_path):
    """Keys and types as Self-Forcing writes them."""
    lmdb = pytest.importorskip("lmdb")
    latents = np.random.default_rng(0).normal(size=(3, 5, 2, 4, 6, 7)).astype(np.float16)
    with lmdb.open(str(tmp_path), map_size=2**24) as file, file.begin(write=True) as writer:
        writer.put(b"latents_shape", " ".join(map(str, latents.shape)).encode())
        for i, array in enumerate(latents):
            writer.put(f"latents_{i}_data".encode(), array.tobytes())
            writer.put(f"prompts_{i}_data".encode(), f"prompt {i}".encode())
    pairs = Pairs(str(tmp_path), (1000, 750, 500, 250), 8.0, (2, 6, 7, 4))
    assert len(pairs) == 3 and pairs.prompts(2) == ("prompt 2",)
    np.testing.assert_array_equal(pairs[1], np.moveaxis(latents[1], 2, -1))


def test_pairs_of_upstream_need_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    (tmp_path / "data.mdb").touch()
    with pytest.raises(ValueError, match=r"pip install 'jaxvid\[lmdb\]'"):
        Pairs(str(tmp_path), (1000,), 8.0, (1, 1, 1, 1))


@pytest.mark.slow
def test_ode_training_on_pairs_made_by_the_script(tmp_path):
    pairs, config = tmp_path / "pairs", "--config=configs/longlive_train.py:tiny_ode"
    make = [config, f"--output={pairs}", "--steps=4", "--config.mesh.data=8"]
    assert script.load("ode_pairs").pairs(make) == 0
    assert json.loads((pairs / "pairs.json").read_text())["steps"] == 4
    assert len(list(pairs.glob("*.npz"))) == 2
    before = {path: path.stat().st_mtime_ns for path in pairs.glob("*.npz")}
    assert script.load("ode_pairs").pairs(make) == 0  # nothing is made again
    assert before == {path: path.stat().st_mtime_ns for path in pairs.glob("*.npz")}
    train = [config, f"--config.data.pairs={pairs}", f"--config.run.output={tmp_path / 'run'}"]
    train += ["--config.train.batch_size=8", "--config.train.steps=30"]
    assert script.load("train").train(train) == 0
    losses = [float(row["loss"]) for row in log(tmp_path / "run")]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5]), losses
