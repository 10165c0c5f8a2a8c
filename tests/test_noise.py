"""Seeds and the keys of requests."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxvid.core.noise import SEEDS, request_key
from jaxvid.cosmos import prompts, sample_config, train
from jaxvid.fdm.train import TrainConfig
from jaxvid.longlive import sample_config as longlive
from jaxvid.longlive import train_config

SETTINGS = {
    "FDM": (TrainConfig, "train.seed"),
    "LongLive": (train_config.TrainConfig, "train.seed"),
    "LongLive's networks": (longlive.ModelConfig, "models.random_seed"),
    "Cosmos": (train.TrainConfig, "train.seed"),
    "Cosmos' networks": (sample_config.ModelConfig, "models.random_seed"),
    "Cosmos' texts": (prompts.PromptConfig, "text.random_seed"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_seeds_of_settings_have_limits(name):
    kind, field = SETTINGS[name]
    seed = field.partition(".")[2]
    kind(**{seed: SEEDS - 1})
    for wrong in (-1, SEEDS, 2**63):
        with pytest.raises(ValueError, match=f"^{field}={wrong} is no seed: .* 0 to 4294967295$"):
            kind(**{seed: wrong})


def test_keys_of_requests_have_64_bits():
    """Of these two `jax.random.key` would keep the same 32."""
    keys = [jax.random.key_data(request_key(0, name)) for name in ("clip_81748", "clip_140437")]
    assert keys[0][0] == keys[1][0] and keys[0][1] != keys[1][1]


def test_any_whole_number_seeds_a_request():
    seeds = (5, 2**32 + 5, 2**64 + 5, -5)
    draws = [float(jax.random.uniform(request_key(seed, "a"))) for seed in seeds]
    assert len(set(draws)) == len(seeds)


def test_jax_settings_do_not_change_the_noise():
    code = "import jax; from jaxvid.core.noise import request_key as k; "
    code += "print(float(jax.random.uniform(k(3, 'a'))))"
    settings = {"JAX_PLATFORMS": "cpu", "JAX_DEFAULT_PRNG_IMPL": "rbg"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | settings
    ).stdout
    np.testing.assert_equal(float(found), float(jax.random.uniform(request_key(3, "a"))))
