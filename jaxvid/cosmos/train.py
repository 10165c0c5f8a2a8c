"""One update of Cosmos post-training: rectified flow on views at once, AdamW, power-profile EMA."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import PartitionSpec as P

from jaxvid.core.noise import check_seed, normal
from jaxvid.cosmos import losses, model
from jaxvid.cosmos.dit import EVERYONE, FSDP_RULES, DitConfig
from jaxvid.wan.lora import LoraConfig, beside, initial_adapters

Part = Literal["control", "all", "lora"]
ADAPTED = r"(control_)?blocks/((self|cross|cross_view)_attn/[qkvo]|mlp_in|mlp_out)"
FLOAT32 = r"(.*/)?(modulate_\w+|modulate|time|final|view_modulation)/.*"  # islands, see dit.py
ADAPTER_RULES = (
    (r".*/a", P(None, EVERYONE)),
    (r".*/b", P(None, None, EVERYONE)),
)
RULES = tuple((rf"(.*/)?{pattern}", spec) for pattern, spec in ADAPTER_RULES + FSDP_RULES)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are upstream's post-training example.

    With `part="lora"` the run's folder gets `model`, with the adapters merged in, and `lora`, the
    adapters in float32. In a bfloat16 model a kernel only shows changes above half a step, 1/512 of
    its size at most, so that a short run at a low rate may leave little of what was learnt in it.
    """

    steps: int = 5_000  # updates
    batch_size: int = 1  # samples of all views per update, over all devices
    part: Part = "control"  # what is trained: the control branch, everything, or adapters
    control: Literal["kept", "from_base"] = "kept"  # "from_base": start it as the base's blocks
    lora_rank: int = 32
    lora_alpha: float = 32.0
    lr: float = 8.63e-5  # times lr_factors
    lr_factors: tuple[float, ...] = (1e-6, 0.5, 0.2)  # at update 0, after warm-up, at the end
    warmup_steps: int = 1_000
    decay_steps: int = 100_000  # update with the last factor
    weight_decay: float = 1e-3
    clip: float = 0.1  # largest norm of the whole gradient
    ema: float = 0.1  # width of the average's profile as a share of the run so far
    shift: float = 5.0  # of the noise levels
    text_dropout: float = 0.2  # of all views' text at once, by zeros
    given_frames: tuple[float, ...] = (0.5, 0.25, 0.25)  # probability of 0, 1, 2 given latents
    remat: bool = True  # recompute inner values of blocks for the gradient, to save memory
    seed: int = 0
    log_every: int = 100
    save_every: int = 200
    keep: int = 2  # checkpoints kept for resuming
    sample_every: int = 0  # how well the control is followed is measured; 0: never

    def __post_init__(self):
        for field in ("steps", "batch_size", "log_every", "save_every", "keep", "lora_rank"):
            if getattr(self, field) < 1:
                raise ValueError(f"train.{field}={getattr(self, field)} must be at least 1")
        for field in ("weight_decay", "warmup_steps", "sample_every"):
            if getattr(self, field) < 0:
                raise ValueError(f"train.{field}={getattr(self, field)} is negative; use 0 or more")
        check_seed("train.seed", self.seed)
        for field in ("lr", "clip", "shift"):
            if not getattr(self, field) > 0:
                raise ValueError(f"train.{field}={getattr(self, field)} must be positive")
        if not 0 < self.ema < 0.28:
            raise ValueError(f"train.ema={self.ema} is outside (0, 0.28)")
        if len(self.lr_factors) != 3 or self.decay_steps <= self.warmup_steps:
            raise ValueError(
                f"train.lr_factors={self.lr_factors} must be three, and decay_steps="
                f"{self.decay_steps} above warmup_steps={self.warmup_steps}"
            )
        if not 0 <= self.text_dropout <= 1:
            raise ValueError(f"train.text_dropout={self.text_dropout} is outside [0, 1]")
        if min(self.given_frames, default=-1) < 0 or abs(sum(self.given_frames) - 1) > 1e-6:
            raise ValueError(
                f"train.given_frames={self.given_frames} must be probabilities with sum 1"
            )

    @property
    def lora(self) -> LoraConfig:
        return LoraConfig(self.lora_rank, self.lora_alpha)


class State(NamedTuple):
    """All that an update changes."""

    step: jax.Array  # () int32, updates done
    trained: dict  # float32, see `divide`
    optimizer: optax.OptState
    ema: dict  # of trained


class Batch(NamedTuple):
    """What one loss is computed of; b samples of v views."""

    latents: jax.Array  # (b, v, t, h, w, c) clean
    control: jax.Array  # (b, v, t, h, w, c)
    text: jax.Array  # (b, v, m, c) words, or embeddings if the text projection is trained
    sigma: jax.Array  # (b,) noise level
    given: jax.Array  # (b, v, t) 1 where a frame is given
    view_ids: jax.Array  # (v,)


def rate(config: TrainConfig, step):
    """The learning rate of update `step` (from 0): up to a peak, then slowly down, linearly."""
    start, peak, end = config.lr_factors
    up = start + (peak - start) * step / max(config.warmup_steps, 1)
    left = (config.decay_steps - step) / (config.decay_steps - config.warmup_steps)
    down = end + (peak - end) * jnp.clip(left, 0, 1)
    return config.lr * jnp.where(step < config.warmup_steps, up, down)


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW after clipping, with decay on every parameter."""
    adamw = optax.adamw(
        functools.partial(rate, config), b1=0.9, b2=0.999, eps=1e-8,
        weight_decay=config.weight_decay,
    )  # fmt: skip
    return optax.chain(optax.clip_by_global_norm(config.clip), adamw)


def ema_exponent(width: float) -> float:
    """The exponent of the power profile of relative width (EDM2, arXiv:2312.02696)."""
    roots = np.roots([1, 7, 16 - width**-2, 12 - width**-2])
    return float(roots.real[np.abs(roots.imag) < 1e-9].max())


def ema_keep(config: TrainConfig, step):
    """What is kept of the average at update `step`, counted from 0: at 0 nothing."""
    return (1 - 1 / (step + 1)) ** (ema_exponent(config.ema) + 1)


def divide(config: TrainConfig, params: Mapping, key) -> tuple[dict, dict]:
    """What is trained, and what stays: parts of the network, or fresh adapters and all of it."""
    if config.part == "control":
        return losses.split(params)
    if config.part == "all":
        return dict(params), {}
    return initial_adapters(params, config.lora, key, ADAPTED), dict(params)


def assemble(config: TrainConfig, trained: Mapping, frozen: Mapping, join=beside) -> dict:
    """The inverse of `divide`: the network's parameters.

    join: how adapters come in, `lora.beside` to train or `lora.merge` for a model of its own.
    """
    if config.part == "lora":
        return join(frozen, trained, config.lora.scale)
    return {**frozen, **trained}


def initial_state(config: TrainConfig, trained: dict) -> State:
    """State before the first update; the average starts as a copy."""
    copy = jax.tree.map(jnp.copy, trained)
    return State(jnp.zeros((), jnp.int32), trained, optimizer(config).init(trained), copy)


def type_of(network: DitConfig, name: str) -> str:
    """The type in which a parameter is used: matrices as they are multiplied, others float32."""
    fine = not name.endswith("/kernel") or re.fullmatch(FLOAT32, name)
    return "float32" if fine else network.dtype


def rounded(network: DitConfig, params: Mapping) -> dict:
    """Parameters in the types of `type_of`, before devices send them to each other."""
    flat = flatten_dict(params, sep="/")
    return unflatten_dict({n: a.astype(type_of(network, n)) for n, a in flat.items()}, sep="/")


def loss(config: TrainConfig, network: DitConfig, params: Mapping, batch: Batch, noise):
    """() mean squared error of the velocity; noise is like batch.latents."""
    context = batch.text
    if config.part == "all":
        context = model.text_context(network, params, context)

    def predict(latents, timestep):
        return model.velocity(
            network, params, latents, timestep, context, batch.control,
            given=batch.given, view_ids=batch.view_ids,
        )  # fmt: skip

    clean = batch.latents.astype(jnp.float32)
    return losses.flow_matching(predict, clean, noise, batch.sigma, batch.given)[0]


def batch_noise(key, shape):
    """(b, ...) noise; that of a row depends on the key and the row alone."""
    return jax.vmap(lambda row: normal(jax.random.fold_in(key, row), shape[1:]))(
        jnp.arange(shape[0])
    )


def train_step(config: TrainConfig, network: DitConfig, state: State, frozen, batch: Batch, key):
    """One update.

    Args:
      frozen: the parameters that stay, in the type in which they are kept.
      key: PRNG key of the run; the noise of a sample depends on it, the step and the row.
    Returns:
      The new state; the () loss and norm of the gradient before clipping.
    """
    noise = batch_noise(jax.random.fold_in(key, state.step), batch.latents.shape)

    def objective(trained):
        params = rounded(network, assemble(config, trained, frozen))
        return loss(config, network, params, batch, noise)

    value, gradient = jax.value_and_grad(objective)(state.trained)
    changes, moments = optimizer(config).update(gradient, state.optimizer, state.trained)
    trained = optax.apply_updates(state.trained, changes)
    keep = ema_keep(config, state.step)
    ema = jax.tree.map(lambda e, p: keep * e + (1 - keep) * p, state.ema, trained)
    metrics = {"loss": value, "grad_norm": optax.tree.norm(gradient)}
    return State(state.step + 1, trained, moments, ema), metrics
