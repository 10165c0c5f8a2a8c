"""Training runs: exact resume, stops, starting from upstream's files, logs."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvid.core import checkpoint, torch_file
from jaxvid.core.config import load_config, override
from jaxvid.fdm import keys
from jaxvid.fdm.model import load_model
from jaxvid.fdm.setup import training_setup
from jaxvid.fdm.train import initial_state
from jaxvid.fdm.training_run import FdmTraining
from jaxvid.runs import training
from jaxvid.runs.training_log import DivergedError

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / "configs/fdm_demo_train.py:tiny")
RELEASED = Path(__file__).parent / "goldens/fdm/released_format"


def setup_of(folder, *assignments):
    config = load_config(CONFIG)
    override(config, [f"run.output={folder}", "mesh.data=2", "mesh.view=4", *assignments])
    return training_setup(config)


def run(setup):
    """The state of the networks after the run."""
    return training.run(FdmTraining(setup))[0]


def assert_equal(tree, other):
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        wanted = dict(jax.tree_util.tree_leaves_with_path(other))[path]
        np.testing.assert_array_equal(leaf, wanted, err_msg=str(path))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The state after six updates in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, jax.device_get(run(setup_of(folder)))


def test_a_resumed_run_is_equal_to_the_bit(tmp_path, undisturbed):
    run(setup_of(tmp_path, "train.steps=4", "train.save_every=2"))
    found = run(setup_of(tmp_path))
    assert_equal(jax.device_get(found), undisturbed[1])
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4", "6"]


@pytest.mark.slow
def test_a_killed_run_resumes_equal_to_the_bit(tmp_path, undisturbed):
    """SIGKILL as soon as the first checkpoint is there, then the same command again."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "8", "JAX_PLATFORMS": "cpu"}
    environment |= {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    command = [sys.executable, "scripts/train.py", f"--config={CONFIG}"]
    command += [f"--config.run.output={tmp_path}", "--config.train.save_every=1"]
    command += ["--config.mesh.data=2", "--config.mesh.view=4"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    while process.poll() is None and checkpoint.latest_step(tmp_path / "checkpoints") is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = checkpoint.latest_step(tmp_path / "checkpoints")
    assert killed_at is not None and killed_at < 6
    found = run(setup_of(tmp_path, "train.save_every=1"))
    assert_equal(jax.device_get(found), undisturbed[1])


def test_every_ema_is_a_model_to_sample_from(undisturbed):
    folder, state = undisturbed
    model = load_model(folder / "ema_0.998")
    assert_equal(jax.device_get(model.params), state.ema["0.998"])
    assert model.step == 6
    assert model.arguments["max_frames"] == 5


def test_other_settings_are_refused(undisturbed):
    with pytest.raises(ValueError, match=r"train\.lr"):
        run(setup_of(undisturbed[0], "train.lr=0.5"))


def test_divergence_stops_with_a_message_and_saves_nothing(tmp_path):
    with pytest.raises(DivergedError, match=r"Lower train\.lr"):
        run(setup_of(tmp_path, "train.lr=1e30", "train.log_every=1"))
    assert checkpoint.latest_step(tmp_path / "checkpoints") is None


def test_gradient_accumulation_equals_the_whole_batch(tmp_path, undisturbed):
    """The noise belongs to the row of the batch, so that only the order of sums differs.

    Two updates: Adam's first steps have the size of the learning rate even where a gradient is all
    rounding, so that later ones drift apart.
    """
    microbatch = ("train.microbatch=1", "mesh.data=1", "mesh.view=8")
    run(setup_of(tmp_path, *microbatch, "train.steps=2"))
    found, wanted = (
        next(csv.DictReader((folder / "log.csv").open())) for folder in (tmp_path, undisturbed[0])
    )
    for name in ("loss", "mse", "grad_norm"):
        np.testing.assert_allclose(float(found[name]), float(wanted[name]), rtol=1e-4)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.batch_size=3", "batch_size=3"),
        ("train.max_frames=50", "max_frames=50"),
        ("train.mask_distribution=cosecutive", "mask_distribution"),
        ("network.image_size=32", "image_size=32"),
        ("train.ema_rates=(1.5,)", "ema_rates"),
        ("data.name=mazes", "mazes"),
        ("mesh.data=3", "mesh"),
    ],
)
def test_bad_settings(tmp_path, assignment, message):
    with pytest.raises(ValueError, match=message):
        run(setup_of(tmp_path, assignment))


def test_starts_from_upstream_files(tmp_path):
    """Model, EMA and optimiser of an upstream run, found beside each other."""
    for name in ("model550000.pt", "ema_0.9999_550000.pt"):
        (tmp_path / name).write_bytes((RELEASED / name).read_bytes())
    model = keys.read_checkpoint(tmp_path / "model550000.pt")
    names = list(keys.state_dict(model.params))
    shapes = {name: a.shape for name, a in keys.state_dict(model.params).items()}
    moments = {
        i: {
            "step": np.float32(17),
            "exp_avg": np.full(shapes[name], i, np.float32),
            "exp_avg_sq": np.full(shapes[name], 2 * i, np.float32),
        }
        for i, name in enumerate(names)
    }
    groups = [{"lr": 1e-4, "params": list(range(len(names)))}]
    torch_file.save_pt(tmp_path / "opt550000.pt", {"state": moments, "param_groups": groups})
    setup = setup_of(tmp_path / "run")
    config = dataclasses.replace(setup.train, ema_rates=(0.9999, 0.5))
    state = keys.companion_state(
        tmp_path / "model550000.pt", model.network, initial_state(config, model.params)
    )
    ema = keys.read_checkpoint(tmp_path / "ema_0.9999_550000.pt")
    assert_equal(state.ema["0.9999"], ema.params)
    assert_equal(state.ema["0.5"], model.params)
    adam = state.optimizer[0]
    assert int(adam.count) == 17
    theirs = keys.state_dict(adam.mu)
    for i, name in enumerate(names):
        np.testing.assert_array_equal(theirs[name], i)
    np.testing.assert_array_equal(keys.state_dict(adam.nu)[names[3]], 6)
