"""A tiny causal Wan transformer for tests."""

import functools

import jax
import jax.numpy as jnp
import random_params

from jaxvid.longlive.cache import CausalWan
from jaxvid.longlive.rollout import RolloutConfig
from jaxvid.wan.dit import WanConfig, abstract_parameters

CONFIG = WanConfig(
    depth=2, width=16, heads=2, mlp=24, channels=4, text_width=8, text_length=5, frequencies=8
)
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
quick_jit = functools.partial(jax.jit, compiler_options=QUICK)  # for programs that run once
SIZE = (4, 4)  # of latents
ROLLOUT = RolloutConfig(block=2, window=6, sink=1, steps=(1000, 500))


def network(config: RolloutConfig = ROLLOUT, frames: int = 100, wan: WanConfig = CONFIG):
    return CausalWan(wan, config.cache_window(frames))


@functools.cache
def parameters(config: WanConfig = CONFIG):
    return random_params.everywhere(abstract_parameters(config), 0.2)


def text(seed: int, batch: int = 1):
    return jax.random.normal(jax.random.key(seed), (batch, 3, CONFIG.text_width))


def latents(frames: int, seed: int = 5, batch: int = 1):
    shape = (batch, frames, *SIZE, CONFIG.channels)
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32)
