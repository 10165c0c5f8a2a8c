"""Where Cosmos post-training starts: new control branches, precision, bad settings."""

import dataclasses

import jax
import numpy as np
import pytest
from small_cosmos_train import host, one_line, system, with_files

from jaxvid.core import torch_file
from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.cosmos import files, losses, train, train_models
from jaxvid.cosmos.dit import CONTROL


def test_a_new_control_branch_begins_as_the_base(tmp_path):
    run = system(tmp_path, tmp_path, "train.control=from_base")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = host(train_models.load(run.setup, mesh))
    count = len(run.setup.network.hinted)
    for name in params["blocks"]:
        first = jax.tree.map(lambda a: a[:count], params["blocks"][name])
        jax.tree.map(np.testing.assert_array_equal, first, params["control_blocks"][name])
    assert not any(a.any() for a in jax.tree.leaves(params["control_blocks"]["after"]))


@pytest.mark.slow
def test_a_base_without_control_gets_a_new_branch(tmp_path):
    run = system(tmp_path, tmp_path)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = host(train_models.load(run.setup, mesh))
    base = files.revert(params, {"network": dataclasses.asdict(run.setup.network)})
    base = {n: np.asarray(a) for n, a in base.items() if "control" not in n}
    torch_file.save_pt(tmp_path / "base.pt", base)
    assignments = (f"models.transformer={tmp_path / 'base.pt'}", "train.control=from_base")
    from_file = with_files(tmp_path, tmp_path, run, *assignments)
    found = host(train_models.load(from_file, mesh))
    for name in set(params) - set(CONTROL):
        rounded = jax.tree.map(lambda a: a.astype("bfloat16").astype(a.dtype), params[name])
        jax.tree.map(np.testing.assert_array_equal, found[name], rounded)
    assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, params)


def test_half_precision_keeps_what_is_trained_in_float32(tmp_path):
    run = system(tmp_path, tmp_path, "models.dtype=bfloat16")
    like = train_models.abstract_parameters(run.setup, make_mesh(MeshConfig()))
    trained, frozen = losses.split(like)
    assert {a.dtype.name for a in jax.tree.leaves(trained)} == {"float32"}
    assert frozen["blocks"]["mlp_in"]["kernel"].dtype.name == "bfloat16"
    assert frozen["time"]["in"]["kernel"].dtype.name == "float32"  # where float32 is computed
    used = jax.eval_shape(lambda p: train.rounded(run.setup.network, p), like)
    assert used["control_blocks"]["mlp_in"]["kernel"].dtype.name == "bfloat16"


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
