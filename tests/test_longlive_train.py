"""LongLive's training runs: learning, exact resume, sharding, adapters, data, bad input."""

import csv
import dataclasses
import functools
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_wan import QUICK

from jaxvid.core import checkpoint, torch_file
from jaxvid.core.config import load_config, override
from jaxvid.core.mesh import make_mesh
from jaxvid.core.video import VideoWriter
from jaxvid.longlive import ode_pairs, stream, train_data, train_preview
from jaxvid.longlive.ode_pairs import Pairs, PairsConfig
from jaxvid.longlive.pair_making import origin
from jaxvid.longlive.stream import Position
from jaxvid.longlive.train_config import DataConfig, TrainConfig
from jaxvid.longlive.train_prompts import Order, Texts, read_prompts
from jaxvid.longlive.train_run import LongLiveTraining
from jaxvid.longlive.train_setup import training_setup
from jaxvid.longlive.train_videos import Videos
from jaxvid.runs import training

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def quick(monkeypatch):
    """Programs of the run compile in half the time."""
    monkeypatch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=QUICK))


def config_of(stage: str, folder, *assignments):
    config = load_config(f"configs/longlive_train.py:tiny_{stage}")
    override(config, [f"run.output={folder}", *assignments])
    return config


def system_of(stage: str, folder, *assignments) -> LongLiveTraining:
    return LongLiveTraining(training_setup(config_of(stage, folder, *assignments)))


def run(system, devices: int = 1):
    return training.run(system, jax.devices()[:devices])


def log(folder) -> list[dict]:
    return list(csv.DictReader((Path(folder) / "log.csv").open()))


def assert_equal(tree, other, **tolerance):
    leaves, others = map(jax.tree_util.tree_leaves_with_path, (tree, other))
    assert [path for path, _ in leaves] == [path for path, _ in others]
    for (path, leaf), (_, wanted) in zip(leaves, others, strict=True):
        close = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
        close(leaf, wanted, err_msg=str(path), **tolerance)


def script(name):
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / f"scripts/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LEARN = (
    *("train.steps=120", "train.save_every=60", "train.log_every=10", "data.windows=2"),
    *("train.frames=4", "train.sample_frames=4", "train.remat=False"),
)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A run of flow matching in one go: its folder, settings and last state."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=QUICK))
        folder = tmp_path_factory.mktemp("learnt")
        system = system_of("flow_matching", folder, *LEARN)
        state = run(system)
    return folder, system, state


def test_flow_matching_learns(learnt):
    """The loss falls, and what the generator makes comes closer to the latents of the data."""
    folder, system, state = learnt
    losses = [float(row["loss"]) for row in log(folder)]
    assert np.mean(losses[-3:]) < 0.5 * losses[0], losses
    wanted = np.mean([system.source[i] for i in range(len(system.source))], axis=0)
    distances = []
    with jax.set_mesh(system.devices):
        for params in (system.initial_state().generator.params, state.generator.params):
            now = state._replace(generator=state.generator._replace(params=params, ema={}))
            made = train_preview.preview_latents(system, now, 0)[0]
            distances.append(float(np.abs(made.mean(0) - wanted.mean(0)).mean()))
    assert distances[1] < 0.5 * distances[0], distances


@pytest.mark.usefixtures("quick")
def test_a_resumed_run_is_equal_to_the_bit(learnt):
    """The last checkpoint goes; a run from the one before it comes to the same state."""
    folder, _, state = learnt
    shutil.rmtree(checkpoint.step_path(folder / "checkpoints", 120))
    found = run(system_of("flow_matching", folder, *LEARN))
    assert_equal(jax.device_get(found), jax.device_get(state))
    assert [row["step"] for row in log(folder)] == [str(n) for n in range(10, 121, 10)]
    info = checkpoint.read_info(folder / "generator_ema")
    assert (info["model"], info["step"]) == ("wan_dit_ema", 120)
    assert_equal(checkpoint.restore(folder / "generator_ema"), state.generator.ema)
    with pytest.raises(ValueError, match=r"holds a run with train\.lr"):
        run(system_of("flow_matching", folder, *LEARN, "train.lr=0.5"))


def test_stream_of_the_published_settings():
    """237 of 240 frames: 21, then 12 times 18; prompts change where a chunk starts."""
    config = TrainConfig("streaming", lora_rank=256, ema=0.0)
    position, chunks = Position(), []
    for _ in range(26):
        chunks.append(stream.next_chunk(config, 3, position))
        position = chunks[-1].end
    assert [chunk.start for chunk in chunks[:13]] == [0, *range(21, 220, 18)]
    assert [chunk.frames for chunk in chunks[:13]] == [21] + [18] * 12
    assert [chunk.video for chunk in chunks] == [0] * 13 + [1] * 13
    for video in (0, 1):
        switch = stream.switch_frame(config, video)
        for chunk in chunks[13 * video : 13 * video + 13]:
            assert chunk.switch_block == (0 if chunk.start == switch else None)
            assert chunk.prompt == int(chunk.start >= switch)


def test_turns_of_an_update():
    """The generator learns in every fifth update, a chunk before the critic's."""
    config = TrainConfig("streaming", lora_rank=256, ema=0.0)
    first = stream.plan(config, 3, 0, Position())
    assert [(who, chunk.start) for who, chunk in first] == [("generator", 0), ("critic", 21)]
    second = stream.plan(config, 3, 1, first[-1][1].end)
    assert [(who, chunk.start) for who, chunk in second] == [("critic", 39)]
    skipped = dataclasses.replace(config, train_first_chunk=False)
    turns = stream.plan(skipped, 3, 1, Position())
    assert [(who, chunk.start) for who, chunk in turns] == [("nobody", 0), ("critic", 21)]
    dmd = stream.plan(TrainConfig(), 3, 5, Position(4, 21))
    assert [(who, chunk.video) for who, chunk in dmd] == [("generator", 5), ("critic", 5)]


def test_a_switch_within_a_chunk_takes_effect_at_the_next_block():
    sizes = {"frames": 6, "new_frames": 6, "max_frames": 18, "switch_frames": (7,)}
    config = TrainConfig("streaming", image_first=False, **sizes)
    chunks = [stream.next_chunk(config, 3, Position(0, start)) for start in (6, 12)]
    assert [(chunk.switch_block, chunk.prompt) for chunk in chunks] == [(1, 1), (None, 1)]


def test_every_prompt_comes_once_an_epoch_even_with_large_batches():
    order = Order(items=3, batch_size=5, seed=1)
    found = [order(batch, row) for batch in range(3) for row in range(5)]
    for epoch in range(5):
        assert sorted(found[3 * epoch : 3 * epoch + 3]) == [0, 1, 2]
    assert found == [Order(3, 5, 1)(batch, row) for batch in range(3) for row in range(5)]


def test_prompts_are_embedded_ahead_and_dropped():
    calls = []

    def embed(prompts):
        calls.append(list(prompts))
        return {prompt: np.full((2, 3), len(prompt), np.float32) for prompt in prompts}

    texts = Texts(embed, length=4, ahead=4)
    texts.keep(["bad"])
    upcoming = lambda n: [["a", "bb"], ["c", "dd"], ["eee", "f"]][n]  # noqa: E731
    rows = texts(["a", "bb"], upcoming)
    assert rows.shape == (2, 4, 3) and rows[1, 1, 0] == 2 and not rows[:, 2:].any()
    texts(["c", "dd"], lambda n: [["c", "dd"], ["eee", "f"]][n])
    texts(["eee", "f"], lambda n: [["eee", "f"], ["a", "bb"]][n])
    assert calls == [["bad", "a", "bb", "c", "dd"], ["eee", "f"]]
    assert set(texts.known) == {"bad", "eee", "f", "a", "bb"}


def test_texts_of_sample_videos_do_not_drop_those_ahead(tmp_path, monkeypatch):
    calls = []

    def embed(setup, prompts):
        calls.append(prompts)
        return {prompt: np.zeros((2, 32), np.float32) for prompt in prompts}

    monkeypatch.setattr(train_data, "embed", embed)
    setup = training_setup(config_of("dmd", tmp_path, "train.sample_every=1"))
    source = train_data.PromptList([(f"prompt {i}",) for i in range(50)], "here")
    feed = train_data.Feed(setup, source, make_mesh(setup.mesh, jax.devices()[:1]))
    for step in range(4):
        feed(step, Position())
        assert feed.shown_texts().shape == (1, 128, 32)
    assert len(calls) == 1 and {"blurred", "prompt 0"} < set(calls[0])


def test_videos_of_another_rate_are_told(tmp_path):
    for fps in (16, 30):
        with VideoWriter(tmp_path / f"{fps}.mp4", fps=fps) as writer:
            writer.write(np.zeros((5, 16, 16, 3), np.uint8))
        write(tmp_path / f"{fps}.txt", "a caption")
    setup = training_setup(config_of("flow_matching", tmp_path / "run", "train.frames=2"))
    data = dataclasses.replace(setup.data, videos=str(tmp_path))
    text = Videos(dataclasses.replace(setup, data=data)).describe()
    assert "from 2 videos, 1 of which have 30 to 30 frames per second" in text


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


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_prompt_lists(tmp_path):
    first = write(tmp_path / "first.txt", "a\nb\n")
    second = write(tmp_path / "second.txt", "c\nd\n")
    rows = write(tmp_path / "rows.jsonl", '{"prompts": ["a", "c"]}\n{"prompts": ["b", "d", "e"]}\n')
    wanted = [("a", "c"), ("b", "d")]
    assert read_prompts(DataConfig(first, second), pairs=True) == wanted
    found = read_prompts(DataConfig(rows), pairs=True)
    assert train_data.PromptList(found, "rows", 2).rows == wanted
    assert train_data.PromptList(found, "rows").rows == [("a",), ("b",)]
    assert "1 rows have more prompts, of" in train_data.PromptList(found, "rows", 2).describe()
    bad = {
        "": ("", "is empty"),
        "x.txt": ("a\n\nb\n", "line 2: the prompt is empty"),
        "y.jsonl": ('{"prompts": []}\n', "line 1: the prompt is empty"),
        "z.jsonl": ("{\n", "line 1: no JSON"),
        "e.txt": ("", "is empty: give at least one line"),
        "one.jsonl": ('{"prompts": ["a"]}\n', "line 1 has one prompt"),
    }
    for name, (text, message) in bad.items():
        path = write(tmp_path / name, text) if name else ""
        with pytest.raises(ValueError, match=message):
            read_prompts(DataConfig(path), pairs=True)
    with pytest.raises(ValueError, match=r"switch_prompts has 1 lines, data\.prompts 2"):
        short = write(tmp_path / "short.txt", "c\n")
        read_prompts(DataConfig(first, short), pairs=True)


BAD = [
    ("dmd", "train.batch_size=3", "is not a multiple of mesh.data=2: use 4"),
    ("dmd", "train.frames=5", "train.frames=5 is no multiple of rollout.block=2: use 4"),
    ("dmd", "train.lora_rank=4", "set train.ema=0"),
    ("dmd", "data.height=15", "15"),
    ("dmd", "data.prompts=nowhere.txt", "nowhere.txt cannot be read"),
    ("dmd", "teacher.channels=8", "the teacher makes 8 channels of latents, the VAE has 4"),
    ("dmd", "critic.text_width=8", "the critic reads embeddings 8 wide"),
    ("dmd", "run.start_from=x.pt", "name the generator to start from in models.transformer"),
    ("dmd", "models.lora=x.pt", "reads no files"),
    ("streaming", "train.new_frames=3", "train.new_frames=3 is no multiple"),
    ("streaming", "train.new_frames=8", "is more than the train.frames=6"),
    ("streaming", "train.new_frames=6", "leaves none of the train.frames=6 to begin with an image"),
    ("streaming", "train.max_frames=4", "less than the first chunk"),
    ("streaming", "train.switch_frames=(6,14)", "has 14, at train.max_frames=14 videos end"),
    ("dmd", "models.lora_alpha=4", "fresh adapters take train.lora_rank and train.lora_alpha"),
    ("ode", "rollout.relative_rope=True", "no effect on train.stage=ode"),
    ("streaming", "data.prompts=data/prompts/text.txt", "one prompt, streaming needs two"),
    ("flow_matching", "data.videos=", "data.videos is empty"),
    ("flow_matching", "data.videos=data/clips", "has no caption"),
    ("flow_matching", "train.frames=2000", "latent frames are more than"),
    ("flow_matching", "train.frames=500", "train.frames needs 999"),
    ("ode", "data.pairs=nowhere", "there is no such folder"),
    ("ode", "rollout.steps=(1000,0)", "must not hold 0"),
    ("ode", "mesh.data=3", "does not use exactly"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "assignment", "message"), BAD)
def test_bad_input_is_one_line_before_weights(tmp_path, stage, assignment, message):
    def never(*_):
        raise AssertionError("weights were read")

    with pytest.raises(ValueError) as error:
        system = system_of(stage, tmp_path / "run", assignment)
        system.initial_state = system.abstract_state = never
        run(system, devices=2)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_devices_that_cannot_share_a_network_are_named(tmp_path):
    system = system_of("dmd", tmp_path / "run", "mesh.tensor=2", "teacher.heads=1")
    with pytest.raises(ValueError, match=r"mesh\.tensor=2 does not divide the 1 heads"):
        run(system, devices=2)


def test_files_of_another_kind_are_named(tmp_path):
    """Each field of `models` says what is wrong with its own file."""
    bad = write(tmp_path / "bad.pt", "no checkpoint")
    config = config_of("dmd", tmp_path / "run", "models.random=False")
    plain = load_config("configs/longlive_train.py:dmd")
    config.update({name: plain[name] for name in ("network", "critic", "teacher", "vae", "text")})
    with pytest.raises(ValueError, match=r"models\.transformer=checkpoints/ode_init\.pt"):
        training_setup(config)
    config.models.transformer = bad
    with pytest.raises(ValueError, match=r"bad\.pt"):
        training_setup(config)


@pytest.mark.parametrize(
    ("stage", "named"),
    [("streaming", ("transformer", "critic", "teacher", "vae")), ("dmd", ("teacher",))],
)
def test_networks_that_do_not_learn_tell_runs_apart(tmp_path, stage, named):
    """Those of the checkpoints may have moved away."""
    setup = training_setup(config_of(stage, tmp_path / "run"))
    fields = ("transformer", "critic", "teacher", "vae", "text_encoder")
    paths = {field: write(tmp_path / field, field) for field in fields}
    models = dataclasses.replace(setup.models, random=False, **paths)
    setup = dataclasses.replace(setup, models=models)
    for field in fields[:4]:
        before = setup.fingerprint["models"]
        write(tmp_path / field, "other weights")
        changed = {n for n, value in setup.fingerprint["models"].items() if value != before[n]}
        assert changed == {field} & set(named)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_streaming_resumes_in_the_middle_of_a_video(tmp_path):
    """With adapters; the stream's cache, its place and its prompts go on as if undisturbed."""
    steps = ("train.steps=6", "train.save_every=3")
    whole = run(system_of("streaming", tmp_path / "whole", *steps))
    run(system_of("streaming", tmp_path / "parts", *steps, "train.steps=3"))
    middle = checkpoint.read_info(tmp_path / "parts/checkpoints")
    assert middle["step"] == 3
    found = run(system_of("streaming", tmp_path / "parts", *steps))
    assert_equal(jax.device_get(found), jax.device_get(whole))
    assert whole.position.video > 0  # a video came to its end


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("stage", ["dmd", "streaming"])
def test_sharded_equals_unsharded(tmp_path, stage, monkeypatch):
    """Parameters, optimiser and batch over two devices: only the order of sums differs."""
    monkeypatch.setattr("jaxvid.core.fsdp.spread.__defaults__", (16,))
    states = []
    for devices in (1, 2):
        system = system_of(stage, tmp_path / str(devices), "train.steps=2", "train.lr=1e-5")
        states.append(run(system, devices))
    split = states[1].generator.params
    assert any("data" in str(leaf.sharding.spec) for leaf in jax.tree.leaves(split))
    for rows in zip(*(log(tmp_path / str(devices)) for devices in (1, 2)), strict=True):
        for name in ("critic_loss", "critic_grad_norm", "generator_loss"):
            if rows[0][name]:
                np.testing.assert_allclose(*(float(row[name]) for row in rows), rtol=1e-3)
    params = [jax.device_get(state.generator.params) for state in states]
    assert_equal(*params, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["flow_matching", "dmd", "streaming"])
def test_training_through_the_script_and_back_to_upstream(tmp_path, stage):
    """One update; what is exported samples, and converts to upstream's file and back."""
    folder = tmp_path / "run"
    arguments = [f"--config=configs/longlive_train.py:tiny_{stage}", "--config.mesh.view=4"]
    arguments += ["--config.mesh.data=2", f"--config.run.output={folder}"]
    arguments += ["--config.train.steps=1", "--config.train.sample_every=1"]
    assert script("train").train(arguments) == 0
    assert list((folder / "samples").glob("step_00000001_*.mp4"))
    convert = script("convert")
    kinds = {"flow_matching": {"generator": "wan_dit"},
             "dmd": {"generator": "wan_dit", "critic": "wan_dit_critic"},
             "streaming": {"lora": "wan_lora", "critic_lora": "wan_lora_critic"}}  # fmt: skip
    for name, model in kinds[stage].items():
        path = tmp_path / f"{name}.pt"
        back = ["--model", model, "--reverse", "--source", str(folder / name)]
        assert convert.main([*back, "--output", str(path)]) == 0
        (entry,) = torch_file.load(path)
        assert entry == {"lora": "generator_lora", "critic_lora": "critic_lora"}.get(name, name)
    check_loads(folder, stage)


def check_loads(folder: Path, stage: str):
    """Sampling's own reader takes the exported model."""
    from jaxvid.longlive import models
    from jaxvid.longlive.sample_config import ModelConfig

    if stage == "streaming":
        adapters, strength = models.read_lora(
            ModelConfig(lora=str(folder / "lora")),
            training_setup(config_of(stage, folder)).network,
        )
        assert strength.rank == 2 and strength.scale == 1.0
        assert np.any(adapters["blocks"]["ffn_in"]["b"])
        return
    found, merged = models.describe_transformer(ModelConfig(transformer=str(folder / "generator")))
    assert not merged and found == training_setup(config_of(stage, folder)).network


@pytest.mark.slow
def test_ode_training_on_pairs_made_by_the_script(tmp_path):
    pairs, config = tmp_path / "pairs", "--config=configs/longlive_train.py:tiny_ode"
    make = [config, f"--output={pairs}", "--steps=4", "--config.mesh.data=8"]
    assert script("ode_pairs").pairs(make) == 0
    assert json.loads((pairs / "pairs.json").read_text())["steps"] == 4
    assert len(list(pairs.glob("*.npz"))) == 2
    before = {path: path.stat().st_mtime_ns for path in pairs.glob("*.npz")}
    assert script("ode_pairs").pairs(make) == 0  # nothing is made again
    assert before == {path: path.stat().st_mtime_ns for path in pairs.glob("*.npz")}
    train = [config, f"--config.data.pairs={pairs}", f"--config.run.output={tmp_path / 'run'}"]
    train += ["--config.train.batch_size=8", "--config.train.steps=30"]
    assert script("train").train(train) == 0
    losses = [float(row["loss"]) for row in log(tmp_path / "run")]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5]), losses


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_dmd_learns_the_teachers_videos(tmp_path):
    """The generator's rollouts move to where the teacher's flow ends, with whole networks."""
    changes = ("train.steps=120", "train.generator_every=2", "train.lr=3e-3", "train.beta1=0.5")
    system = system_of("dmd", tmp_path, *changes, "train.ema=0", "train.guidance=0.0")
    mesh = make_mesh(system.mesh, jax.devices()[:1])
    with jax.set_mesh(mesh):
        system.open(mesh)
        state, feed = system.initial_state(), system.feed(0)
        head = system.frozen["teacher"]["head"]["out"]
        head["kernel"], head["bias"] = 0 * head["kernel"], 0 * head["bias"]
        sizes = []
        for step in range(120):
            state, metrics = system.update(state, feed(step, state))
            if "direction" in metrics:
                sizes.append(float(metrics["direction"]))
    assert np.mean(sizes[-10:]) < 0.7 * np.mean(sizes[:10]), sizes
