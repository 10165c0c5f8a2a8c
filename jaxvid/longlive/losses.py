"""Losses of LongLive's training stages (Self-Forcing, arXiv:2506.08009; DMD, arXiv:2311.18828)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxvid.core import flow

Velocity = Callable  # (x (b, t, h, w, c), timesteps (b, t)) -> velocity


def per_frame(values):
    """(b, t) to (b, t, 1, 1, 1)."""
    return values[..., None, None, None]


def flow_matching(velocity, clean, noise, weights):
    """Squared error of the velocity, averaged over videos and frames with weights (b, t)."""
    errors = jnp.square(velocity - (noise - clean)).mean((2, 3, 4))
    return (weights * errors).mean()


def ode_regression(velocity, x, clean, timesteps, shift: float):
    """Error of the clean prediction at points of an ODE's path; frames at timestep 0 are left out.

    Args:
      x: (b, t, h, w, c) points of the path at `timesteps` (b, t); clean: where it ends.
      shift: of the table that tells noise levels.
    Returns:
      the loss and the clean prediction.
    """
    found = flow.clean_of(x, velocity, per_frame(flow.sigma_at(timesteps, shift)))
    errors = jnp.square(found - clean).mean((2, 3, 4))
    return masked_mean(errors, timesteps != 0), found


def masked_mean(values, mask):
    """Mean of values where mask, broadcast to them, is True."""
    mask = jnp.broadcast_to(mask, values.shape)
    return jnp.where(mask, values, 0).sum() / jnp.maximum(mask.sum(), 1)


@dataclasses.dataclass(frozen=True)
class DmdConfig:
    """Distribution matching; the defaults are LongLive's."""

    guidance: float = 3.0  # on top of the conditional prediction: 3 is what others call 4
    shift: float = 5.0  # of the generator's table
    score_shift: float = 8.0  # of the table by which teacher and critic turn velocity to clean
    lowest: float = 20.0  # timesteps are clamped to this
    highest: float = 980.0

    def timestep(self, number):
        """The timestep of a uniform integer in 0..999."""
        u = jnp.asarray(number, jnp.float32) / flow.STEPS
        shifted = self.shift * u / (1 + (self.shift - 1) * u) * flow.STEPS
        return jnp.clip(shifted, self.lowest, self.highest)


def noised(config: DmdConfig, video, noise, timesteps):
    """What teacher and critic are asked about: the video (b, t, ...) at timesteps (b, t)."""
    return flow.add_noise(video, noise, per_frame(flow.sigma_at(timesteps, config.shift)))


def predicted(config: DmdConfig, velocity: Velocity, x, timesteps):
    """The clean video that a score network sees in x."""
    sigma = per_frame(flow.sigma_at(timesteps, config.score_shift))
    return flow.clean_of(x, velocity(x, timesteps), sigma)


def dmd_direction(
    config: DmdConfig,
    critic: Velocity,
    teacher: Velocity,
    teacher_without_text: Velocity,
    video,
    noise,
    timesteps,
):
    """Where the generator's videos differ from the teacher's, normalised per video.

    Args:
      critic: knows the generator's distribution; teacher: the wanted one.
      teacher_without_text: the teacher under the negative prompt.
      video: (b, t, h, w, c) from the generator; noise: of its shape; timesteps: (b, t).
    """
    video = jax.lax.stop_gradient(video)
    x = noised(config, video, noise, timesteps)
    fake = predicted(config, critic, x, timesteps)
    real = predicted(config, teacher, x, timesteps)
    real = real + config.guidance * (real - predicted(config, teacher_without_text, x, timesteps))
    size = jnp.abs(video - real).mean((1, 2, 3, 4), keepdims=True)
    return jax.lax.stop_gradient(jnp.nan_to_num((fake - real) / size, nan=0.0))


def dmd_loss(video, direction, mask=None):
    """A loss whose gradient by the video is direction / count; mask: (t,) frames that count."""
    target = jax.lax.stop_gradient(video - direction)
    errors = 0.5 * jnp.square(video - target)
    return masked_mean(errors, True if mask is None else per_frame(jnp.asarray(mask, bool)))


def critic_loss(config: DmdConfig, critic: Velocity, video, noise, timesteps, mask=None):
    """Flow matching of the critic on the generator's video; mask as in `dmd_loss`.

    The critic's velocity is turned to a clean video by its own table and back by the
    generator's, as upstream does; the two differ slightly.
    """
    video = jax.lax.stop_gradient(video)
    x = noised(config, video, noise, timesteps)
    clean = predicted(config, critic, x, timesteps)
    velocity = flow.velocity_of(x, clean, per_frame(flow.sigma_at(timesteps, config.shift)))
    errors = jnp.square(velocity - (noise - video))
    return masked_mean(errors, True if mask is None else per_frame(jnp.asarray(mask, bool)))
