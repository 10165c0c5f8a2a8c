"""One training step of FDM: loss of frame sets, gradients over microbatches, AdamW, EMA."""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvid.core.noise import check_seed, normal
from jaxvid.fdm import diffusion
from jaxvid.fdm.frames import check_distribution
from jaxvid.fdm.model import network
from jaxvid.fdm.process import Process
from jaxvid.fdm.unet import Frames, UNetConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are upstream's, with its faults off."""

    steps: int = 1_000_000  # updates
    batch_size: int = 8  # videos per update, over all devices
    microbatch: int = -1  # videos per gradient evaluation; -1 takes the whole batch
    max_frames: int = 20  # K, frames of each video the network sees
    lr: float = 1e-4
    lr_anneal_steps: int = 0  # linear decay to 0 at this step; 0 keeps lr
    weight_decay: float = 0.0
    ema_rates: tuple[float, ...] = (0.9999,)
    mask_distribution: str = "differently-spaced-groups"
    marginal_frames: bool = False  # also draw frames without content (`do_inefficient_marg`)
    pad_with_random_frames: bool = True
    padding_masks: Literal["none", "upstream"] = "none"
    loss_average: Literal["upstream", "masked"] = (
        "upstream"  # "masked" divides by frames that count
    )
    microbatch_gradients: Literal["mean", "sum"] = "mean"  # upstream sums
    timestep_sampler: Literal["uniform", "loss-second-moment"] = "uniform"
    seed: int = 0
    log_every: int = 10
    save_every: int = 5_000
    keep: int = 2  # checkpoints kept for resuming
    sample_every: int = 5_000  # 0: never

    def __post_init__(self):
        for field in ("steps", "batch_size", "max_frames", "log_every", "save_every", "keep"):
            if getattr(self, field) < 1:
                raise ValueError(f"train.{field}={getattr(self, field)} must be at least 1")
        for field in ("lr_anneal_steps", "weight_decay", "sample_every"):
            if getattr(self, field) < 0:
                raise ValueError(f"train.{field}={getattr(self, field)} is negative; use 0 or more")
        check_seed("train.seed", self.seed)
        if len(set(self.ema_rates)) < len(self.ema_rates):
            raise ValueError(f"train.ema_rates={self.ema_rates} names a rate twice")
        if self.microbatch != -1 and (self.microbatch < 1 or self.batch_size % self.microbatch):
            raise ValueError(
                f"train.microbatch={self.microbatch} does not divide batch_size={self.batch_size}"
            )
        if not self.ema_rates or not all(0 <= rate < 1 for rate in self.ema_rates):
            raise ValueError(f"train.ema_rates={self.ema_rates} must be numbers in [0, 1)")
        if self.lr <= 0:
            raise ValueError(f"train.lr={self.lr} must be positive")

    @property
    def microbatches(self) -> int:
        return 1 if self.microbatch == -1 else self.batch_size // self.microbatch

    def check_clip(self, frames: int) -> None:
        """ValueError if the frame sets do not fit clips of this many frames."""
        check_distribution(self.mask_distribution, frames, self.max_frames)


class State(NamedTuple):
    """All that an update changes."""

    step: jax.Array  # () int32, updates done
    params: dict
    optimizer: optax.OptState
    ema: dict  # rate, as text, to parameters


class Batch(NamedTuple):
    """What one loss is computed of; b videos of k frames."""

    clean: jax.Array  # (b, k, h, w, c) in [-1, 1]
    frames: Frames
    timestep: jax.Array  # (b,) index into the process
    weight: jax.Array  # (b,) importance of the timestep
    noise: jax.Array  # (b, k, h, w, c)


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW with PyTorch's defaults; the rate of update s is lr * (1 - s / lr_anneal_steps)."""
    rate = config.lr
    if config.lr_anneal_steps:
        rate = optax.linear_schedule(config.lr, 0.0, config.lr_anneal_steps)
    return optax.adamw(rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=config.weight_decay)


def initial_state(config: TrainConfig, params: dict) -> State:
    """State before the first update; each EMA starts as a copy of the parameters."""
    ema = {str(rate): jax.tree.map(jnp.copy, params) for rate in config.ema_rates}
    return State(jnp.zeros((), jnp.int32), params, optimizer(config).init(params), ema)


def losses(config: TrainConfig, unet: UNetConfig, process: Process, params, batch: Batch, key=None):
    """dict of (b,) terms (see diffusion.training_losses); `key` draws dropout."""
    frames = batch.frames
    marginal = 0 if frames.marginal is None else frames.marginal
    counted = 1 - frames.observed - marginal if config.pad_with_random_frames else frames.latent

    def denoise(x, step):
        times = jnp.asarray(process.network_timesteps)[step]
        return network(unet, params, x, batch.clean, times, frames, key)

    terms = diffusion.training_losses(
        process, denoise, batch.clean, batch.timestep, batch.noise, counted, frames.latent
    )
    if config.loss_average == "masked":
        share = jnp.maximum(counted.mean(1), 1 / counted.shape[1])
        terms["loss"] = terms["loss"] / share
    return terms


def gradient(config, unet, process, params, batch: Batch, key=None):
    """Gradient of the weighted mean loss, and the terms."""

    def loss(params):
        terms = losses(config, unet, process, params, batch, key)
        return jnp.mean(terms["loss"] * batch.weight), terms

    (_, terms), found = jax.value_and_grad(loss, has_aux=True)(params)
    return found, terms


def update(config: TrainConfig, state: State, gradient) -> State:
    """AdamW step, then each EMA moves towards the new parameters."""
    changes, moments = optimizer(config).update(gradient, state.optimizer, state.params)
    params = optax.apply_updates(state.params, changes)
    ema = {
        rate: jax.tree.map(lambda e, p, r=float(rate): r * e + (1 - r) * p, old, params)
        for rate, old in state.ema.items()
    }
    return State(state.step + 1, params, moments, ema)


def video_noise(key, row, shape):
    """Standard normal noise of the video in a row of the batch."""
    return normal(jax.random.fold_in(key, row), shape)


def train_step(config: TrainConfig, unet: UNetConfig, process: Process, state: State, batches, key):
    """One update.

    Args:
      batches: Batch whose arrays have a leading axis of microbatches; `noise` is ignored.
      key: PRNG key of the run; the noise of a video depends on it, the step and the video's row in
        the batch, so not on how the batch is divided.
    Returns:
      The new state; dict of (m * b,) loss terms and the () gradient norm.
    """
    key = jax.random.fold_in(key, state.step)
    count, videos = batches.timestep.shape

    def one(total, inputs):
        index, batch = inputs
        noise_key, dropout_key = jax.random.split(key)
        rows = index * videos + jnp.arange(videos)
        noise = jax.vmap(lambda row: video_noise(noise_key, row, batch.clean.shape[1:]))(rows)
        dropout_key = jax.random.fold_in(dropout_key, index) if unet.dropout else None
        batch = batch._replace(noise=noise)
        found, terms = gradient(config, unet, process, state.params, batch, dropout_key)
        return jax.tree.map(jnp.add, total, found), terms

    batches = batches._replace(noise=jnp.zeros(count))
    if count == 1:  # a loop of one costs a copy of all gradients
        zero = jax.tree.map(lambda _: 0.0, state.params)
        total, terms = one(zero, (0, jax.tree.map(lambda a: a[0], batches)))
    else:
        zero = jax.tree.map(jnp.zeros_like, state.params)
        total, terms = jax.lax.scan(one, zero, (jnp.arange(count), batches))
    if config.microbatch_gradients == "mean":
        total = jax.tree.map(lambda g: g / count, total)
    metrics = {name: values.reshape(-1) for name, values in terms.items()}
    metrics["grad_norm"] = optax.tree.norm(total)
    return update(config, state, total), metrics
