"""LongLive's training runs: learning, exact resume, sharding, models back to upstream."""

import functools
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import script
from small_longlive_train import ROOT, config_of, log, run, system_of
from small_wan import QUICK

from jaxvid.core import checkpoint, torch_file
from jaxvid.core.mesh import make_mesh
from jaxvid.longlive import train_preview
from jaxvid.longlive.train_setup import training_setup

pytestmark = pytest.mark.usefixtures("at_root")


@pytest.fixture
def quick(monkeypatch):
    """Programs of the run compile in half the time."""
    monkeypatch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=QUICK))


def assert_equal(tree, other, **tolerance):
    leaves, others = map(jax.tree_util.tree_leaves_with_path, (tree, other))
    assert [path for path, _ in leaves] == [path for path, _ in others]
    for (path, leaf), (_, wanted) in zip(leaves, others, strict=True):
        close = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
        close(leaf, wanted, err_msg=str(path), **tolerance)


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
    assert script.load("train").train(arguments) == 0
    assert list((folder / "samples").glob("step_00000001_*.mp4"))
    convert = script.load("convert")
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
