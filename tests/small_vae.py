"""A tiny Wan VAE with random parameters for tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.wan import vae

CONFIG = vae.VaeConfig(
    width=4,
    latent_channels=3,
    multipliers=(1, 2, 2),
    blocks=1,
    halve_time=(True, True),
    mean=(0.1, -0.2, 0.3),
    std=(1.5, 2.0, 0.7),
)
# Compiling takes longer than running here, so little is optimised.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def parameters(config: vae.VaeConfig = CONFIG):
    """Random everywhere, so that no part of the network is idle."""
    random = np.random.default_rng(0)

    def draw(leaf):
        noise = random.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(noise if leaf.ndim > 1 else 0.5 + 0.1 * noise, jnp.float32)

    return jax.tree.map(draw, vae.abstract_parameters(config))


@functools.cache
def jitted(function, config: vae.VaeConfig = CONFIG, **settings):
    """A function of `vae`, (params, x, ...) -> ..."""
    return jit(functools.partial(function, config, **settings))


def video(frames: int = 9, batch: int = 1, size=(8, 12)):
    shape = (batch, frames, *size, 3)
    return jax.random.uniform(jax.random.key(2), shape, jnp.float32, -1, 1)


def latents(frames: int = 3, batch: int = 1, size=(2, 3)):
    return jax.random.normal(jax.random.key(3), (batch, frames, *size, CONFIG.latent_channels))
