"""Cosmos post-training with tiny networks on eight devices."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvid.core import torch_file
from jaxvid.core.config import load_config, override
from jaxvid.cosmos.train_setup import training_setup
from jaxvid.cosmos.training_run import CosmosTraining
from jaxvid.wan import vae, vae_keys

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / "configs/cosmos_train.py:tiny")
SMALL = (
    f"text.tokenizer={ROOT / 'data' / 'tokenizer_qwen'}", "vae.multipliers=(1,1)",
    "vae.halve_time=(True,)", "data.frames=3", "data.height=8", "data.width=16", "data.samples=4",
    "train.part=control", "train.batch_size=2", "train.steps=4", "train.save_every=100",
    "train.log_every=2", "train.sample_every=0", "train.lr=1e-3", "train.remat=False",
    "mesh.data=2", "mesh.seq=2", "mesh.view=2",
)  # fmt: skip


def system(folder, prepared, *assignments):
    config = load_config(CONFIG)
    places = [f"run.output={folder}", f"data.prepared={prepared}"]
    override(config, [*SMALL, *places, *assignments])
    return CosmosTraining(training_setup(config))


def with_files(folder, prepared, run, *assignments):
    """The settings of a run that starts from files, with the VAE of a random one beside."""
    params = jax.tree.map(np.asarray, vae.init(run.setup.vae, jax.random.key(0)))
    torch_file.save_pt(folder / "vae.pth", vae_keys.revert(params, {}))
    config = load_config(CONFIG)
    places = [f"run.output={folder}", f"data.prepared={prepared}", f"models.vae={folder}/vae.pth"]
    override(config, [*SMALL, *places, "models.random=False", *assignments])
    return training_setup(config)


def one_line(message, function, *arguments):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        function(*arguments)
    assert "\n" not in str(error.value)


def host(tree):
    return jax.tree.map(np.asarray, tree)
