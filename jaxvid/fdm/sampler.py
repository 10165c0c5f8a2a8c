"""Denoising the frames of one call, and completing whole videos call by call."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxvid.core.noise import normal
from jaxvid.fdm import diffusion
from jaxvid.fdm.model import condition, evaluate
from jaxvid.fdm.process import Process
from jaxvid.fdm.scheme import Step
from jaxvid.fdm.unet import Frames, UNetConfig

CONDITIONING_BYTES = 256 * 2**20  # conditioning terms kept ready at once


def denoise_step(process: Process, denoise, x, step, noise, method: str, eta: float, clip: bool):
    """x one step less noisy by "ddpm" or "ddim"."""
    prediction = diffusion.predict(process, denoise(x, step), x, step, clip)
    if method == "ddpm":
        return diffusion.ancestral_step(process, prediction, x, step, noise)
    return diffusion.ddim_step(process, prediction, x, step, noise, eta)


def denoise_loop(
    process: Process,
    denoise: Callable,
    noise: Callable,
    *,
    method: str = "ddpm",
    eta: float = 0.0,
    clip: bool = True,
):
    """All frames of a call from noise (upstream `p_sample_loop`, `ddim_sample_loop`).

    Args:
      process: the (respaced) process.
      denoise: maps (x, step) to the network's output.
      noise: maps 0 to the initial noise and i + 1 to that of the i-th step, (b, t, h, w, c).
      method: "ddpm" or "ddim".
      eta: of DDIM, 0 for deterministic.
      clip: clamp clean predictions to [-1, 1].
    Returns:
      (b, t, h, w, c); observed frames are meaningless.
    """

    def body(x, inputs):
        i, step = inputs
        step = jnp.full(x.shape[0], step)
        return denoise_step(process, denoise, x, step, noise(i + 1), method, eta, clip), None

    steps = jnp.arange(process.steps)
    return jax.lax.scan(body, noise(0), (steps, steps[::-1]))[0]


def make_window(step: Step, size: int, batch: int) -> Frames:
    """Indices and masks of one call of a scheme, padded to a static number of frames.

    Args:
      step: the call; its observed frames may differ from video to video.
      size: frames that all calls are padded to.
      batch: number of videos.
    Returns:
      Frames of NumPy arrays: (1, size) where all videos share the call, else (batch, size).
      Observed frames come first, then latent ones, then padding with `real` 0.
    """
    rows = step.rows(batch)
    if all(row == rows[0] for row in rows):
        rows = rows[:1]
    frames = [[*row, *step.latent] for row in rows]
    kind = np.array([[0] * len(row) + [1] * len(step.latent) for row in rows])
    missing = [(0, 0), (0, size - kind.shape[1])]
    kind = np.pad(kind, missing, constant_values=2)
    return Frames(
        indices=np.pad(np.array(frames, np.int32), missing, mode="edge"),
        observed=(kind == 0).astype(np.float32),
        latent=(kind == 1).astype(np.float32),
        real=(kind < 2).astype(np.float32),
    )


def gather_frames(videos, indices):
    """The frames of each video at (b or 1, t) indices: (b, n, h, w, c) to (b, t, h, w, c)."""
    indices = jnp.broadcast_to(indices, (videos.shape[0], indices.shape[1]))
    return jnp.take_along_axis(videos, rearrange(indices, "b t -> b t 1 1 1"), axis=1)


def scatter_latent(videos, found, frames: Frames):
    """Writes the latent frames of a call back into the videos; other frames stay."""
    b, n = videos.shape[:2]
    target = jnp.where(frames.latent > 0, frames.indices, n)  # n is out of range: dropped
    target = jnp.broadcast_to(target, (b, target.shape[1]))
    return videos.at[jnp.arange(b)[:, None], target].set(found, mode="drop")


def conditioning_chunk(config: UNetConfig, params, process: Process, frames: Frames) -> int:
    """Timesteps whose conditioning is computed at once: a divisor of all, within memory."""
    times = jax.ShapeDtypeStruct((1,), jnp.float32)
    shapes = jax.eval_shape(functools.partial(condition, config), params, times, frames)
    size = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(shapes))
    most = max(1, min(process.steps, CONDITIONING_BYTES // max(size, 1)))
    return max(n for n in range(1, most + 1) if process.steps % n == 0)


def denoise_window(
    config: UNetConfig,
    process: Process,
    params,
    x0,
    frames: Frames,
    noise: Callable,
    *,
    method: str = "ddpm",
    eta: float = 0.0,
    clip: bool = True,
    guidance: bool = False,
):
    """`denoise_loop` of the network, its conditioning computed ahead and once for all videos.

    Args:
      x0: (b, t, h, w, c) clean frames, read where observed.
      frames: (b or 1, t) indices and masks; 1 where all videos share them.
      noise: see denoise_loop.
      guidance: observe through the gradient of the clean prediction instead of the input
        (upstream's `--use_gradient_method`).
    Returns:
      (b, t, h, w, c)
    """
    batch = x0.shape[0]
    shown = frames
    if guidance:
        shown = frames._replace(observed=jnp.zeros_like(frames.observed), latent=frames.used)
    wide, masks = jax.tree.map(lambda a: jnp.broadcast_to(a, (batch, a.shape[1])), (frames, shown))

    def body(x, inputs):
        i, step, terms = inputs
        step = jnp.full(batch, step)

        def denoise(x, step):
            return evaluate(config, params, x, x0, masks, terms)

        if guidance:
            return _guided_step(process, denoise, x, step, noise(i + 1), x0, wide, clip), None
        return denoise_step(process, denoise, x, step, noise(i + 1), method, eta, clip), None

    def chunk(x, inputs):
        i, step = inputs
        times = jnp.asarray(process.network_timesteps)[step]
        terms = jax.vmap(lambda time: condition(config, params, time[None], shown))(times)
        return jax.lax.scan(body, x, (i, step, terms))[0], None

    size = conditioning_chunk(config, params, process, frames)
    steps = jnp.arange(process.steps)
    inputs = (steps.reshape(-1, size), steps[::-1].reshape(-1, size))
    return jax.lax.scan(chunk, noise(0), inputs)[0]


def _guided_step(process, denoise, x, step, noise, x0, frames: Frames, clip):
    observed = rearrange(frames.observed, "b t -> b t 1 1 1")

    def miss(x):
        prediction = diffusion.predict(process, denoise(x, step), x, step, clip)
        return jnp.sum(jnp.square(prediction.clean - x0) * observed), prediction

    gradient, prediction = jax.grad(miss, has_aux=True)(x)
    prediction = diffusion.guided(prediction, process, step, gradient)
    return diffusion.ancestral_step(process, prediction, x, step, noise)


def call_noise(keys, window: int, shape):
    """Noise of one call: maps i to (b, t, h, w, c), the same whatever else is in the batch.

    keys: (b,) one PRNG key per video; shape: (t, h, w, c).
    """
    keys = jax.vmap(lambda key: jax.random.fold_in(key, window))(keys)

    def noise(i):
        def draw(key):
            return normal(jax.random.fold_in(key, i), shape)

        return jax.vmap(draw)(keys)

    return noise
