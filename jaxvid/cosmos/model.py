"""The Cosmos network as functions of its parameters, a plain nested dict."""

import functools

import jax
import jax.numpy as jnp

from jaxvid.core.mesh import axis_size
from jaxvid.cosmos.dit import Dit, DitConfig


def text_context(config: DitConfig, params, text):
    """The words that the blocks attend to, the same in all steps: compute them once.

    Args:
      params: the network's; only those of the text projection are looked at.
      text: (..., m, text_in) embeddings, for instance (b, v, 512, 100352).
    Returns:
      (..., m, text_width) in the network's type.
    """
    return Dit(config).apply({"params": params}, text, method="text_context")


def velocity(config: DitConfig, params, latents, timestep, context, control, *, given, view_ids,
             control_scale=1.0, padding=None):  # fmt: skip
    """The flow's velocity, noise minus clean latents.

    Views and tokens of a view are split over the mesh axes `view` and `seq`, padded where they do
    not divide; the batch over `data`.

    Args:
      latents: (b, v, t, h, w, c) noisy, given frames already in their place.
      timestep: (b,) in [0, 1000].
      context: (b, v, m, text_width), of `text_context`; a view attends to its own m words.
      control: (b, v, t, h, w, c) latents of the control videos; c may be several modalities'.
      given: (b, v, t) 1 where a frame is given, else 0.
      view_ids: (v,) int, cameras of the views, below config.views.
      control_scale: () factor of all hints, in [0, 1].
      padding: (b, H, W) in pixels, 1 where a frame is padding; None for none.
    Returns:
      (b, v, t, h, w, c) float32.
    Raises:
      ValueError: latents that patches do not fit.
    """
    arguments = (latents, timestep, context, control, given, view_ids, control_scale, padding)
    return Dit(config).apply({"params": params}, *arguments)


@functools.partial(jax.jit, static_argnums=0)
def initial_parameters(config: DitConfig, key) -> dict:
    """Fresh float32 parameters as upstream draws them: hints are zero at first.

    Attention over views starts as a copy of attention within a view whose output is zero.
    """

    def everything(network, latents, text):
        b, v, t = latents.shape[:3]
        context, ids = network.text_context(text), jnp.arange(v)
        return network(latents, jnp.zeros(b), context, latents, jnp.zeros((b, v, t)), ids, 1.0)

    batch = axis_size("data")  # the least that a mesh in use can share out
    latents = jnp.zeros((batch, 1, 1, config.patch, config.patch, config.channels))
    text = jnp.zeros((batch, 1, 1, config.text_in or config.text_width))
    params = Dit(config).init(key, latents, text, method=everything)["params"]
    if config.cross_view:
        for stack in ("blocks", "control_blocks"):
            blocks = params[stack]
            kept = {"o": blocks["cross_view_attn"]["o"]}
            params[stack] = blocks | {"cross_view_attn": blocks["self_attn"] | kept}
    return params


def control_from_base(config: DitConfig, params) -> dict:
    """The parameters with a fresh control branch: block n as base block n, its hints zero.

    How control is added to a base network (upstream's "first_n", wherever the hints go).
    """
    count = len(config.hinted)
    control = params["control_blocks"]
    copied = {
        name: jax.tree.map(lambda a: a[:count], params["blocks"][name]) for name in params["blocks"]
    }
    after = jax.tree.map(jnp.zeros_like, control["after"])
    before = jax.tree.map(jnp.zeros_like, params["control_in"])
    return params | {"control_blocks": copied | {"after": after}, "control_in": before}


def abstract_parameters(config: DitConfig) -> dict:
    """Shapes and types of the parameters, without computing them."""
    return jax.eval_shape(lambda: initial_parameters(config, jax.random.key(0)))
