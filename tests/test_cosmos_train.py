"""Cosmos post-training runs: exact resume, devices, draws, what is trained and exported."""

import csv
import dataclasses
import functools
import subprocess
import sys

import jax
import numpy as np
import pytest
import small_vae
from small_cosmos_train import ROOT, host, one_line, system, with_files

from jaxvid.core import checkpoint, torch_file
from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.cosmos import (
    files,
    losses,
    model,
    networks,
    train,
    train_inputs,
    train_models,
    training_run,
)
from jaxvid.cosmos.dit import CONTROL
from jaxvid.cosmos.sample_config import ModelConfig
from jaxvid.cosmos.train_data import Shapes
from jaxvid.cosmos.training_run import Feed
from jaxvid.runs import training


@pytest.fixture(scope="module", autouse=True)
def compiled_fast():
    """Compiling takes longer than running here, so little is optimised."""
    with pytest.MonkeyPatch.context() as patch:
        update = functools.partial(training_run.update_function, jit=small_vae.jit)
        patch.setattr(training_run, "update_function", update)
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Latents and words, made by the first test that needs them."""
    return tmp_path_factory.mktemp("prepared")


def updates(run, mesh, count):
    """The state and the metrics after some updates, without the loop around them."""
    run.open(mesh)
    with jax.set_mesh(mesh):
        state, feed, found = run.initial_state(), run.feed(0), []
        for step in range(count):
            state, metrics = run.update(state, feed(step, state))
            found.append(host(metrics))
    return state, found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, prepared):
    """The run's folder and its state after four updates in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, host(training.run(system(folder, prepared)))


def test_a_resumed_run_is_equal_to_the_bit(tmp_path, prepared, undisturbed):
    training.run(system(tmp_path, prepared, "train.steps=2"))
    found = host(training.run(system(tmp_path, prepared)))
    jax.tree.map(np.testing.assert_array_equal, found, undisturbed[1])
    other = system(tmp_path, prepared, "train.shift=3.0", "train.steps=5")
    one_line("holds a run with train.shift=5.0, not 3.0", training.run, other)
    other = system(tmp_path, prepared, "text.random_seed=3")
    one_line("holds a run with models.text=", training.start, other)


def test_other_captions_are_another_run(tmp_path, prepared, undisturbed, monkeypatch):
    run, mesh = system(undisturbed[0], prepared), make_mesh(MeshConfig(), jax.devices()[:1])
    source = Shapes(run.setup.data)
    source.captions[2:] = ["Another caption."] * 2
    monkeypatch.setattr(training_run, "open_data", lambda _: source)
    run.open(mesh)
    one_line("holds a run with data.listed=", training.start, run)


def test_devices_change_nothing(tmp_path, prepared, undisturbed):
    """One device against eight with every matrix in eight parts."""
    alone = make_mesh(MeshConfig(), jax.devices()[:1])
    state, _ = updates(system(tmp_path, prepared), alone, 4)
    pairs = zip(jax.tree.leaves(host(state)), jax.tree.leaves(undisturbed[1]), strict=True)
    for ours, wanted in pairs:
        np.testing.assert_allclose(ours, wanted, atol=1e-5)  # updates are 2e-3 in all


def changed(before, after, limit=1e-6):
    """Names of the parts that differ."""
    pairs = {name: (jax.tree.leaves(before[name]), jax.tree.leaves(after[name])) for name in before}
    return {
        name for name, (old, new) in pairs.items()
        if max(np.abs(a - b).max() for a, b in zip(old, new, strict=True)) > limit
    }  # fmt: skip


def test_the_averaged_parameters_are_a_model(undisturbed, tmp_path, prepared):
    """With the control branch as it was averaged, and all else as it was at the start."""
    folder, state = undisturbed
    info = checkpoint.read_info(folder / "model")
    network = files.network_of(info)
    params = checkpoint.restore(folder / "model")
    assert set(state.trained) == set(CONTROL)
    jax.tree.map(np.testing.assert_array_equal, losses.split(params)[0], state.ema)
    run = system(tmp_path, prepared)
    start = host(train_models.load(run.setup, make_mesh(MeshConfig(), jax.devices()[:1])))
    assert changed(start, params) == set(CONTROL)
    sampled = ModelConfig(transformer=str(folder / "model"), dtype="float32")
    assert networks.describe_transformer(sampled) == network
    torch_file.save_pt(tmp_path / "model.pt", files.revert(params, info))
    again, shape = files.read_network(tmp_path / "model.pt", {"vace_block_every_n": 1})
    assert (shape.depth, shape.width, shape.text_in) == (network.depth, network.width, 32)
    half = jax.tree.map(lambda a: a.astype("bfloat16"), params)
    jax.tree.map(np.testing.assert_array_equal, again, half)


@pytest.mark.slow
def test_adapters_alone_are_trained(tmp_path, prepared):
    run = system(tmp_path, prepared, "train.part=lora", "train.lora_rank=2")
    mesh = make_mesh(run.mesh)
    state, metrics = updates(run, mesh, 2)
    assert all(np.isfinite(m["loss"]) and m["grad_norm"] > 0 for m in metrics)
    names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(state.trained)}
    assert names == {"a", "b"}
    start = host(run.frozen)
    with jax.set_mesh(mesh):
        run.export(state, 2)
        batch = host(run._fixed)
    noise = np.ones(batch.latents.shape, np.float32)
    found = checkpoint.restore(tmp_path / "model")
    assert changed(start, found) == {"blocks", "control_blocks"}
    adapters, config = checkpoint.restore(tmp_path / "lora"), run.setup.train
    assert checkpoint.read_info(tmp_path / "lora")["lora"] == {"rank": 2, "alpha": 32.0}
    jax.tree.map(np.testing.assert_array_equal, adapters, host(state.ema))
    loss = jax.jit(functools.partial(train.loss, config, run.setup.network))
    adapted = train.assemble(config, adapters, start)
    np.testing.assert_allclose(loss(adapted, batch, noise), loss(found, batch, noise), rtol=1e-5)
    assert abs(loss(adapted, batch, noise) / loss(start, batch, noise) - 1) > 1e-4


def test_words_are_the_projected_embeddings(tmp_path, prepared):
    """With a frozen projection words are stored, without it embeddings: the same in the network."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    whole, words = (system(tmp_path, prepared, f"train.part={part}") for part in ("all", "control"))
    for run in (whole, words):
        run.open(mesh)
    params = host(train_models.load(whole.setup, mesh))
    for dropped in (False, True):
        text = whole.inputs.words(1, dropped)
        assert text.shape == (2, 512, 32) and text.any() == (not dropped)
        context = model.text_context(whole.setup.network, params, text)
        np.testing.assert_allclose(words.inputs.words(1, dropped), context, atol=1e-5)


def test_inputs_are_made_once(tmp_path, prepared, undisturbed, monkeypatch):
    monkeypatch.setattr(train_inputs, "encode", None)
    run, mesh = system(tmp_path, prepared), make_mesh(MeshConfig(), jax.devices()[:1])
    run.open(mesh)
    latents = run.inputs.latents(0)
    assert latents.shape == (2, 2, 2, 4, 8, 4)
    with pytest.raises(TypeError):  # other frames are other latents
        system(tmp_path, prepared, "data.frames=5").open(mesh)


def test_draws_have_the_stated_distributions(tmp_path, prepared, undisturbed):
    run = system(tmp_path, prepared, "train.given_frames=(0.3,0.6999995)")  # a sum of almost 1
    run.open(make_mesh(MeshConfig(), jax.devices()[:1]))
    feed = Feed(run.setup, run.inputs, run.devices)
    rows = [feed._row(step, row) for step in range(1500) for row in range(2)]
    index, dropped, given, sigma = (np.array(column) for column in zip(*rows, strict=True))
    assert np.bincount(index).tolist() == [750] * 4
    assert abs(dropped.mean() - 0.2) < 0.03
    assert np.abs(np.bincount(given) / 3000 - [0.3, 0.7]).max() < 0.03
    logit = np.log(sigma / (5 - 4 * sigma) / (1 - sigma / (5 - 4 * sigma)))
    assert abs(logit.mean()) < 0.08 and abs(logit.std() - 1) < 0.05
    assert rows[:4] == [feed._row(step, row) for step in range(2) for row in range(2)]


def test_a_run_goes_on_from_a_model_of_ours(undisturbed, tmp_path, prepared):
    path = undisturbed[0] / "model"
    run = system(tmp_path, prepared)
    setup = with_files(tmp_path, prepared, run, f"models.transformer={path}")
    assert setup.network == dataclasses.replace(run.setup.network, remat=False)
    stored = checkpoint.restore(path)
    found = train_models.load(setup, make_mesh(run.mesh))
    jax.tree.map(np.testing.assert_array_equal, host(found), stored)
    assert len(found["blocks"]["mlp_in"]["kernel"].sharding.device_set) == 8
    words = networks.text_projection(setup.models, setup.network)
    jax.tree.map(np.testing.assert_array_equal, words, stored["text"])
    assert setup.fingerprint["models"] != run.setup.fingerprint["models"]


@pytest.mark.slow
def test_a_tiny_network_learns_to_follow_its_control(tmp_path):
    command = [sys.executable, "scripts/train.py", "--config=configs/cosmos_train.py:tiny",
               "--config.run.output", str(tmp_path)]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True)
    log = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert float(log[-1]["loss"]) < 0.4 * float(log[0]["loss"])
    rows = list(csv.DictReader((tmp_path / "control.csv").open()))
    first, last = (float(row["loss_mirrored"]) / float(row["loss"]) for row in (rows[0], rows[-1]))
    assert first < 1.2 and last > 1.7
