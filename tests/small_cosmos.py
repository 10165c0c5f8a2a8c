"""A tiny Cosmos network with random numbers everywhere, and inputs for it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.cosmos import model
from jaxvid.cosmos.dit import DitConfig, tiny

CONFIG = tiny(depth=2, views=7, text_in=6, width=32, mlp=32)
CROSS = tiny(depth=2, views=3, text_in=6, mlp=32, view_channels=0, modalities=1, hint=False,
             view_modulation=True, neighbours=((1, 2), (0,), ()))  # fmt: skip


def parameters(config: DitConfig, seed: int = 0) -> dict:
    """Random everywhere, so that no part of the network is idle."""
    random = np.random.default_rng(seed)

    def draw(leaf):
        return random.normal(size=leaf.shape, scale=max(leaf.shape[-2:][0], 4) ** -0.5)

    params = jax.tree.map(lambda a: draw(a).astype(np.float32), model.abstract_parameters(config))
    one = lambda path, a: 1 + a if path[-1].key == "scale" else a  # noqa: E731
    return jax.tree_util.tree_map_with_path(one, params)


def inputs(config: DitConfig, view_ids, frames=2, height=4, width=6, batch=1, seed=1) -> dict:
    """Arguments of `velocity` by name; text of 5 words."""
    random = np.random.default_rng(seed)
    view_ids = np.asarray(view_ids)
    views = len(view_ids)
    normal = lambda *shape: random.normal(size=shape).astype(np.float32)  # noqa: E731
    given = np.zeros((batch, views, frames), np.float32)
    given[:, ::2, 0] = 1
    return {
        "latents": normal(batch, views, frames, height, width, config.channels),
        "timestep": np.linspace(500, 900, batch, dtype=np.float32),
        "text": normal(batch, views, 5, config.text_in),
        "control": normal(batch, views, frames, height, width, config.channels),
        "given": given,
        "view_ids": view_ids,
    }


def velocity(config: DitConfig, params, latents, timestep, text, control, **rest):
    """`model.velocity` from embeddings; not compiled."""
    context = model.text_context(config, params, jnp.asarray(text))
    return model.velocity(config, params, latents, timestep, context, control, **rest)


jitted = functools.partial(jax.jit, static_argnums=0)(velocity)
