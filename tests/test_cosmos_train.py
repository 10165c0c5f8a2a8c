"""Cosmos post-training: data, schedules, exact resume, devices, what is trained, models."""

import csv
import dataclasses
import functools
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import small_vae

from jaxvid.core import checkpoint, torch_file, video
from jaxvid.core.config import load_config, override
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
from jaxvid.cosmos.train import TrainConfig
from jaxvid.cosmos.train_data import DataConfig, Folder, Shapes, texts
from jaxvid.cosmos.train_setup import training_setup
from jaxvid.cosmos.training_run import CosmosTraining, Feed
from jaxvid.runs import training
from jaxvid.wan import vae, vae_keys
from jaxvid.wan.resize import resize_uint8

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / "configs/cosmos_train.py:tiny")
SMALL = (
    f"text.tokenizer={ROOT / 'data' / 'tokenizer_qwen'}", "vae.multipliers=(1,1)",
    "vae.halve_time=(True,)", "data.frames=3", "data.height=8", "data.width=16", "data.samples=4",
    "train.part=control", "train.batch_size=2", "train.steps=4", "train.save_every=100",
    "train.log_every=2", "train.sample_every=0", "train.lr=1e-3", "train.remat=False",
    "mesh.data=2", "mesh.seq=2", "mesh.view=2",
)  # fmt: skip


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


def system(folder, prepared, *assignments):
    config = load_config(CONFIG)
    places = [f"run.output={folder}", f"data.prepared={prepared}"]
    override(config, [*SMALL, *places, *assignments])
    return CosmosTraining(training_setup(config))


def one_line(message, function, *arguments):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        function(*arguments)
    assert "\n" not in str(error.value)


def host(tree):
    return jax.tree.map(np.asarray, tree)


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


def test_a_view_on_each_of_more_devices(monkeypatch):
    """Two rows on eight devices, filled up by black ones."""
    monkeypatch.setattr(train_inputs, "_encode", lambda config, params, frames: frames[:, ::2] / 2)
    video = np.full((1, 3, 2, 2, 3), 40, np.uint8)
    mesh = make_mesh(MeshConfig(data=8))
    found = train_inputs.encode(None, None, train_inputs.Clip(video, video + 1), mesh)
    assert found.shape == (2, 1, 2, 2, 2, 3)
    assert (found[0] == 20).all() and (found[1] == 20.5).all()


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


def test_the_schedules_are_upstreams():
    config = TrainConfig()
    rates = {0: 1e-6, 500: 1e-6 + (0.5 - 1e-6) / 2, 1000: 0.5, 50_500: 0.35, 100_000: 0.2}
    for step, factor in rates.items():
        np.testing.assert_allclose(train.rate(config, step), 8.63e-5 * factor, rtol=1e-5)
    assert train.rate(config, 200_000) == train.rate(config, 100_000)
    np.testing.assert_allclose(train.ema_exponent(0.1), 6.9372, atol=1e-4)
    assert train.ema_keep(config, 0) == 0
    np.testing.assert_allclose(train.ema_keep(config, 99), 0.99**7.9372, rtol=1e-6)


def test_the_average_follows_the_power_profile():
    """After n updates the parameters of update i weigh like i^gamma."""
    config, average, n = TrainConfig(), 0.0, 400
    for step in range(n):
        keep = train.ema_keep(config, step)
        average = keep * average + (1 - keep) * (step + 1) / n
    gamma = train.ema_exponent(0.1)
    np.testing.assert_allclose(average, (gamma + 1) / (gamma + 2), atol=3e-3)  # of a sum


def test_a_new_control_branch_begins_as_the_base(tmp_path, prepared):
    run = system(tmp_path, prepared, "train.control=from_base")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = host(train_models.load(run.setup, mesh))
    count = len(run.setup.network.hinted)
    for name in params["blocks"]:
        first = jax.tree.map(lambda a: a[:count], params["blocks"][name])
        jax.tree.map(np.testing.assert_array_equal, first, params["control_blocks"][name])
    assert not any(a.any() for a in jax.tree.leaves(params["control_blocks"]["after"]))


def test_a_run_goes_on_from_a_model_of_ours(undisturbed, tmp_path, prepared):
    path = undisturbed[0] / "model"
    run = system(tmp_path, prepared)
    setup = _with_files(tmp_path, prepared, run, f"models.transformer={path}")
    assert setup.network == dataclasses.replace(run.setup.network, remat=False)
    stored = checkpoint.restore(path)
    found = train_models.load(setup, make_mesh(run.mesh))
    jax.tree.map(np.testing.assert_array_equal, host(found), stored)
    assert len(found["blocks"]["mlp_in"]["kernel"].sharding.device_set) == 8
    words = train_models.text_projection(setup)
    jax.tree.map(np.testing.assert_array_equal, words, stored["text"])
    assert setup.fingerprint["models"] != run.setup.fingerprint["models"]


@pytest.mark.slow
def test_a_base_without_control_gets_a_new_branch(tmp_path, prepared):
    run = system(tmp_path, prepared)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = host(train_models.load(run.setup, mesh))
    base = files.revert(params, {"network": dataclasses.asdict(run.setup.network)})
    base = {n: np.asarray(a) for n, a in base.items() if "control" not in n}
    torch_file.save_pt(tmp_path / "base.pt", base)
    assignments = (f"models.transformer={tmp_path / 'base.pt'}", "train.control=from_base")
    from_file = _with_files(tmp_path, prepared, run, *assignments)
    found = host(train_models.load(from_file, mesh))
    for name in set(params) - set(CONTROL):
        rounded = jax.tree.map(lambda a: a.astype("bfloat16").astype(a.dtype), params[name])
        jax.tree.map(np.testing.assert_array_equal, found[name], rounded)
    assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, params)


def _with_files(folder, prepared, run, *assignments):
    """The settings of a run that starts from files, with the VAE of a random one beside."""
    params = jax.tree.map(np.asarray, vae.init(run.setup.vae, jax.random.key(0)))
    torch_file.save_pt(folder / "vae.pth", vae_keys.revert(params, {}))
    config = load_config(CONFIG)
    places = [f"run.output={folder}", f"data.prepared={prepared}", f"models.vae={folder}/vae.pth"]
    override(config, [*SMALL, *places, "models.random=False", *assignments])
    return training_setup(config)


def test_half_precision_keeps_what_is_trained_in_float32(tmp_path, prepared):
    run = system(tmp_path, prepared, "models.dtype=bfloat16")
    like = train_models.abstract_parameters(run.setup, make_mesh(MeshConfig()))
    trained, frozen = losses.split(like)
    assert {a.dtype.name for a in jax.tree.leaves(trained)} == {"float32"}
    assert frozen["blocks"]["mlp_in"]["kernel"].dtype.name == "bfloat16"
    assert frozen["time"]["in"]["kernel"].dtype.name == "float32"  # where float32 is computed
    used = jax.eval_shape(lambda p: train.rounded(run.setup.network, p), like)
    assert used["control_blocks"]["mlp_in"]["kernel"].dtype.name == "bfloat16"


def write_dataset(root, config, samples=("a", "b")):
    """Upstream's folders with noise in small videos."""
    random = np.random.default_rng(0)
    source = Folder.__new__(Folder)
    source.config, source.root, source.names = config, Path(root), list(samples)
    for i, name in enumerate(samples):
        for path in source.files(i):
            frames = random.integers(0, 255, (config.frames + 1, 16, 32, 3), np.uint8)
            video.write_video(path, frames, fps=10)
        caption = Path(root) / "captions" / "ftheta_camera_front_wide_120fov" / f"{name}.json"
        caption.parent.mkdir(parents=True, exist_ok=True)
        caption.write_text(json.dumps({"caption": f"Drive {name}."}))


def test_upstreams_folders(tmp_path):
    config = DataConfig(
        root=str(tmp_path), views=("rear", "front_wide"), frames=5, height=16, width=16
    )
    write_dataset(tmp_path, config)
    source = Folder(config)
    assert config.ids == (0, 3) and len(source) == 2 and source.captions[1] == "Drive b."
    assert source.check([0, 1]) == []
    clip = source.clip(1)
    assert clip.video.shape == clip.control.shape == (2, 5, 16, 16, 3)
    rear = tmp_path / "control_input_hdmap_bbox" / "ftheta_camera_rear_tele_30fov" / "b.mp4"
    decoded = video.read_video(rear, frames=5, scaler=video.FFMPEG_SCALER)
    resized = resize_uint8(decoded, config.height, config.width)
    np.testing.assert_array_equal(clip.control[1], resized)  # colours as when sampling
    shrunk = decoded.astype(float).reshape(5, 16, 16, 2, 3).mean(3)
    assert np.abs(clip.control[1] - shrunk).mean() < 12  # a box filter, not the triangle
    assert texts(config, source.captions[1]) == [
        "The video is captured from a camera mounted on a car. The camera is facing forward. "
        "Drive b.",
        "The video is captured from a camera mounted on a car. The camera is facing backwards. ",
    ]
    assert source.identity(0) != source.identity(1)
    video.write_video(rear, np.zeros((4, 16, 32, 3), np.uint8), fps=30)
    one_line(f"{rear} has 4 frames; data.frames=5 are taken", source.check, [1])
    video.write_video(rear, np.zeros((5, 16, 32, 3), np.uint8), fps=30)
    one_line(f"{rear} has 30.0 frames per second", source.check, [0, 1])
    for path in source.files(1):
        video.write_video(path, np.zeros((5, 16, 32, 3), np.uint8), fps=30)
    (note,) = source.check([0, 1])
    assert "30.0" in note
    rear.unlink()
    one_line(f"1 videos of 2 samples are missing: {rear}", Folder, config)
    caption = tmp_path / "captions" / "ftheta_camera_front_wide_120fov" / "a.json"
    caption.write_text("[]")
    one_line(f"{caption} is not", Folder, config)
    one_line("there is no folder", Folder, DataConfig(root=str(tmp_path / "videos")))


def test_drawn_scenes_differ_and_their_control_shows_them():
    config = DataConfig(views=("front_wide", "rear"), frames=3, height=4, width=16, samples=3)
    clips = [Shapes(config).clip(i) for i in range(3)]
    for clip in clips:
        bright = clip.video[..., 0] > 100
        np.testing.assert_array_equal(bright, clip.control[..., 0] > 100)
    assert (clips[0].video != clips[1].video).any()
    assert (clips[0].video[0] != clips[0].video[1]).any()


BAD = (
    ("data.frames=4", "4 frames do not fit the VAE"),
    ("data.height=6", "no multiple of the patch"),
    ("data.views=('front_wide','back')", "'back' is no camera"),
    ("train.given_frames=(0.5,0.4)", "must be probabilities with sum 1"),
    ("train.given_frames=(0.5,0.25,0.25)", "gives 2 latent frames, but data.frames=3 are 2 in all"),
    ("run.start_from=x", "models.transformer says what to start from"),
    ("encoder.layers=3", "the transformer reads embeddings 32 wide"),
    ("network.channels=5", "the VAE has 4"),
    ("models.random=False", "there is no such file"),
)


@pytest.mark.parametrize(("assignment", "message"), BAD)
def test_bad_settings_are_one_line(assignment, message, tmp_path):
    one_line(message, system, tmp_path, tmp_path, assignment)


def test_devices_that_do_not_fit_are_one_line(tmp_path):
    run = system(tmp_path, tmp_path, "train.batch_size=3")
    one_line("train.batch_size=3 is not a multiple", run.open, make_mesh(run.mesh))
    run = system(tmp_path, tmp_path, "network.width=36", "network.mlp=100")
    one_line("cannot be split", run.open, make_mesh(run.mesh))


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
