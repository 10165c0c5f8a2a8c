"""One update of LongLive's training, and the stages that learn from given videos.

All functions are pure. Frozen networks come beside what learns; adapters join theirs inside the
loss, see wan/lora.py. The distillations are in distillation.py.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvid.core import flow
from jaxvid.core.mesh import constrain
from jaxvid.core.noise import normal
from jaxvid.longlive import losses
from jaxvid.longlive.forcing import diffusion_forcing, teacher_forcing
from jaxvid.longlive.recipe import Recipe
from jaxvid.longlive.train_config import TrainConfig
from jaxvid.wan.lora import beside


class Learner(NamedTuple):
    """A network that learns."""

    params: dict  # float32, of the whole network or of its adapters
    optimizer: optax.OptState
    ema: dict  # average of `params`; {} without one


class Batch(NamedTuple):
    """What one turn of an update is about; None for what its stage does not use."""

    text: tuple  # (b, m, text_width) embeddings of the first prompts, and of the second
    negative: jax.Array | None = None  # (b, m, text_width)
    clean: jax.Array | None = None  # (b, t, h, w, c) latents of videos
    path: jax.Array | None = None  # (b, p, t, h, w, c) points of an ODE's path, the last one clean


def optimizer(config: TrainConfig, lr: float) -> optax.GradientTransformation:
    """AdamW with a constant rate, after the gradient is cut to a norm."""
    adam = optax.adamw(
        lr, b1=config.beta1, b2=config.beta2, eps=1e-8, weight_decay=config.weight_decay
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adam) if config.clip_norm \
        else adam  # fmt: skip


def initial_learner(config: TrainConfig, lr: float, params: dict, average: bool) -> Learner:
    """Before the first update."""
    ema = jax.tree.map(jnp.copy, params) if average else {}
    return Learner(params, optimizer(config, lr).init(params), ema)


def learn(config: TrainConfig, lr: float, learner: Learner, gradient, step) -> Learner:
    """One step of the optimiser; step: () int, updates done before."""
    changes, moments = optimizer(config, lr).update(gradient, learner.optimizer, learner.params)
    params = optax.apply_updates(learner.params, changes)
    past = jnp.where(step < config.ema_start, 0.0, config.ema)
    ema = learner.ema and jax.tree.map(
        lambda old, new: past * old + (1 - past) * new, learner.ema, params
    )
    return Learner(params, moments, ema)


def whole(params, base, scale: float) -> dict:
    """Parameters of a network that learns: as they are, or adapters beside those of `base`."""
    return beside(base, params, scale) if scale else params


def regress(recipe: Recipe, learner: Learner, base, batch: Batch, key, step):
    """An update by flow matching or ODE regression; returns the learner and metrics."""

    def loss(params):
        params = whole(params, base, recipe.lora_scale)
        if recipe.train.stage == "ode":
            return ode_loss(recipe, params, batch, key)
        return flow_loss(recipe, params, batch, key)

    value, gradient = jax.value_and_grad(loss)(learner.params)
    metrics = {"loss": value, "grad_norm": optax.tree.norm(gradient)}
    return learn(recipe.train, recipe.train.lr, learner, gradient, step), metrics


def flow_loss(recipe: Recipe, params, batch: Batch, key):
    """Flow matching with one noise level per block, under teacher or diffusion forcing."""
    config, block, shift = recipe.train, recipe.rollout.block, recipe.rollout.shift
    clean, (text, *_) = batch.clean, batch.text
    index_key, noise_key, augment_key = jax.random.split(key, 3)
    shape = (clean.shape[0], clean.shape[1] // block)
    noise = noise_of(noise_key, clean.shape)
    table = jnp.asarray(flow.noise_levels(shift))

    def noised(index):
        sigma = table[jnp.repeat(index, block, axis=1)]
        return flow.STEPS * sigma, flow.add_noise(clean, noise, losses.per_frame(sigma))

    index = jax.random.randint(index_key, shape, 0, flow.STEPS)
    times, x = noised(index)
    weights = jnp.asarray(flow.loss_weights(shift))[jnp.repeat(index, block, axis=1)]
    dtype = jnp.dtype(recipe.dtype)
    if config.forcing == "diffusion":
        window = recipe.rollout.window
        velocity = diffusion_forcing(
            recipe.network, params, x, times, text, block, window, dtype
        )  # fmt: skip
    else:
        given, given_times = clean, jnp.zeros_like(times)
        if config.augment_steps:
            level = jax.random.randint(augment_key, shape, 0, config.augment_steps)
            given_times, given = noised(flow.STEPS - 1 - level)
        velocity = teacher_forcing(
            recipe.network, params, given, given_times, x, times, text, block, dtype
        )
    return losses.flow_matching(velocity, clean, noise, weights)


def ode_loss(recipe: Recipe, params, batch: Batch, key):
    """Where the ODE's path ends, asked at one of its points per block."""
    block, shift = recipe.rollout.block, recipe.train.ode_shift
    path, (text, *_) = batch.path, batch.text
    b, points, t = path.shape[:3]
    steps = flow.few_steps((*recipe.rollout.steps, 0), shift, recipe.rollout.warp_steps)
    index = jnp.repeat(jax.random.randint(key, (b, t // block), 0, points), block, axis=1)
    x = jnp.take_along_axis(path, index[:, None, :, None, None, None], axis=1)[:, 0]
    times = jnp.asarray(steps.timesteps)[index]
    velocity = diffusion_forcing(
        recipe.network, params, x, times, text, block, recipe.rollout.window,
        jnp.dtype(recipe.dtype),
    )  # fmt: skip
    return losses.ode_regression(velocity, x, path[:, -1], times, shift)[0]


def noise_of(key, shape):
    """Standard normal, split over devices as the batch is."""
    return constrain(normal(key, shape), "data")
