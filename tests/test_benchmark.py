"""The benchmark: pairs and summaries with counted work, and the script on tiny configs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import random_params

from jaxvid.core.config import load_config
from jaxvid.fdm.model import Model, abstract_parameters, save_model
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.unet import UNetConfig
from jaxvid.runs import benchmark as timing

ROOT = Path(__file__).parents[1]


def script(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "scripts/benchmark.py", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_pairs_run_in_turn_and_give_ratios_within_pairs():
    order = []

    def work(name, pause):
        return lambda: (order.append(name), time.sleep(pause))

    a = timing.Subject("A", {}, {"same": work("a", 0.01), "alone": work("x", 0)})
    b = timing.Subject("B", {}, {"same": work("b", 0.03)})
    found = timing.pair(a, b, repeats=3, warmup=1)
    assert "".join(order) == "abababab"
    assert list(found) == ["same"]
    assert 1.5 < found["same"]["ratio"]["median"] < 4
    assert len(found["same"]["ratio"]["all"]) == 3


def test_first_runs_compile_once_and_then_read_the_cache():
    before = jax.config.jax_compilation_cache_dir
    x = jnp.ones((64, 64))
    function = jax.jit(lambda x: jnp.sin(x @ x).sum())
    found = timing.first_runs(lambda: function(x).block_until_ready(), timing.CompileClock())
    assert found["  compiling in it"] > 0
    assert found["first run, cold"] >= found["  compiling in it"]
    assert jax.config.jax_compilation_cache_dir == before


def test_table_and_units():
    assert timing.clock(0.00123) == "1.23 ms"
    assert timing.clock(0.123) == "123 ms"
    assert timing.clock(12.3) == "12.30 s"
    lines = timing.table(("a", "median"), [("long name", "1 s")]).splitlines()
    assert lines == ["a          median", "long name     1 s"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny network with random weights."""
    config = UNetConfig(image_size=16, channels=32, channel_mult=(1, 1), attention_at=(2,))
    params = random_params.everywhere(abstract_parameters(config), 0.05)
    path = tmp_path_factory.mktemp("model") / "tiny"
    arguments = {"max_frames": 4, "dataset": "maze_walk", "image_size": 16}
    save_model(path, Model(config, DiffusionConfig(steps=40), params, arguments))
    return path


@pytest.mark.slow
def test_sampling_config_against_a_setting(checkpoint, tmp_path):
    done = script(
        "--config=configs/fdm_demo.py:mazes",
        f"--config.checkpoint={checkpoint}",
        *("--config.data.size=16", "--config.data.frames=8", "--config.data.test_videos=2"),
        *("--config.sampling.n_obs=2", "--config.sampling.max_frames=4"),
        *("--config.sampling.step_size=2", "--config.sampling.respacing=2"),
        *("--config.sampling.scheme=autoreg", "--config.sampling.method=ddpm"),
        *("--against_set=config.sampling.respacing=4", "--repeats=2"),
        f"--output={tmp_path / 'figures.json'}",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "figures.json").read_text())
    assert {"environment", "command", "config", "pair", "subjects"} <= set(found)
    assert found["config_b"]["sampling"]["respacing"] == "4"
    assert found["subjects"]["A"]["facts"]["calls_per_video"] == 3
    assert {"one evaluation", "input: one video", "output: one video"} <= set(found["pair"])
    once = found["subjects"]["A"]["once"]
    assert once["first run, cold"] > 0 and once["first run, from cache"] > 0
    assert "B / A" in done.stdout


@pytest.mark.slow
def test_training_config(tmp_path):
    output = tmp_path / "figures.json"
    done = script("--config=configs/fdm_demo_train.py:tiny", "--repeats=2", f"--output={output}")
    assert done.returncode == 0, done.stderr
    stages = json.loads(output.read_text())["subjects"]["A"]["stages"]
    assert set(stages) == {"input: one batch", "one update", "output: one checkpoint"}
    assert all(len(times["all"]) == 2 for times in stages.values())


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--repeats=0"], "--repeats=0"),
        (["--torch_checkout=/nowhere"], "/nowhere"),
        (["--against=configs/nothing.py"], "configs/nothing.py"),
        (["--speed=fast"], "--speed=fast"),
    ],
)
def test_wrong_input_is_one_line(flags, words):
    if "torch" in flags[0]:
        pytest.importorskip("torch")
    done = script("--config=configs/fdm_demo_train.py:tiny", *flags)
    assert done.returncode == 2
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_longlive_against_upstream_says_what_it_needs(tmp_path):
    """Before anything is drawn; the pair itself needs the authors' code."""
    pytest.importorskip("torch")
    from jaxvid.longlive import upstream_torch
    from jaxvid.longlive.setup import sampling_settings

    settings = sampling_settings(load_config(f"{ROOT}/configs/longlive.py:tiny"))
    with pytest.raises(ValueError, match=r"needs network.heads=12, network.width=1536, the rel"):
        upstream_torch.check(settings)
    with pytest.raises(ValueError, match=r"holds no pipeline/causal_inference.py: .* branch v1.0"):
        upstream_torch.load(str(tmp_path))
