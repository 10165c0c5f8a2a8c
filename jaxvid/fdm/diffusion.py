"""Gaussian diffusion of video frames: predictions, sampling steps, losses and the ELBO.

Frames are (b, t, h, w, c) in [-1, 1]; `step` is a (b,) index into the process; a network enters as
`denoise(x, step)`, which closes over parameters, clean frames and masks. Equations: Ho et al.
(arXiv:2006.11239), Song et al. (DDIM, arXiv:2010.02502), Nichol & Dhariwal (arXiv:2102.09672).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxvid.fdm.process import Process


class Prediction(NamedTuple):
    """What one evaluation of the network says about x at `step`, each (b, t, h, w, c)."""

    clean: jax.Array
    mean: jax.Array  # of x one step less noisy
    log_variance: jax.Array  # broadcastable to the frames


def at(constants: np.ndarray, step):
    """Constants at `step` as float32, (b, 1, 1, 1, 1)."""
    return rearrange(jnp.asarray(constants, jnp.float32)[step], "b -> b 1 1 1 1")


def add_noise(process: Process, clean, step, noise):
    """x at `step`, drawn from q(x_t | x_0)."""
    return (
        at(process.sqrt_alphas_cumprod, step) * clean
        + at(process.sqrt_one_minus_alphas_cumprod, step) * noise
    )


def noise_of(process: Process, x, step, clean):
    """The noise that takes `clean` to `x`."""
    return (at(process.sqrt_recip_alphas_cumprod, step) * x - clean) / at(
        process.sqrt_recipm1_alphas_cumprod, step
    )


def posterior_mean(process: Process, clean, x, step):
    """Mean of q(x_{t-1} | x_t, x_0)."""
    return (
        at(process.posterior_mean_coef1, step) * clean + at(process.posterior_mean_coef2, step) * x
    )


def predict(process: Process, output, x, step, clip: bool = True) -> Prediction:
    """Reads the network's output as clean frames, mean and log variance.

    Args:
      output: (b, t, h, w, c), or 2c channels with learned variance.
      clip: clamp the clean frames to [-1, 1].
    """
    config = process.config
    log_variance = _log_variance(process, output, step)
    output = output[..., : x.shape[-1]]
    clean = output
    if config.predict == "noise":
        clean = (
            at(process.sqrt_recip_alphas_cumprod, step) * x
            - at(process.sqrt_recipm1_alphas_cumprod, step) * output
        )
    if clip:
        clean = jnp.clip(clean, -1, 1)
    return Prediction(clean, posterior_mean(process, clean, x, step), log_variance)


def _log_variance(process: Process, output, step):
    variance = process.config.variance
    if variance == "fixed_large":
        return at(process.fixed_large_log_variance, step)
    smallest = at(process.posterior_log_variance_clipped, step)
    if variance == "fixed_small":
        return smallest
    fraction = (output[..., output.shape[-1] // 2 :] + 1) / 2
    return fraction * at(np.log(process.betas), step) + (1 - fraction) * smallest


def ancestral_step(process: Process, prediction: Prediction, x, step, noise):
    """x one step less noisy, drawn from the model (DDPM, algorithm 2)."""
    spread = jnp.exp(0.5 * prediction.log_variance) * noise
    return prediction.mean + at(np.arange(process.steps) > 0, step) * spread


def ddim_step(process: Process, prediction: Prediction, x, step, noise, eta: float = 0.0):
    """x one step less noisy by DDIM (equation 12); eta = 0 is deterministic."""
    alpha_bar, previous = process.alphas_cumprod, process.alphas_cumprod_prev
    sigma = eta * np.sqrt((1 - previous) / (1 - alpha_bar)) * np.sqrt(1 - alpha_bar / previous)
    direction = noise_of(process, x, step, prediction.clean)
    mean = (
        prediction.clean * at(np.sqrt(previous), step)
        + at(np.sqrt(np.maximum(1 - previous - sigma**2, 0)), step) * direction
    )
    return mean + at(sigma * (np.arange(process.steps) > 0), step) * noise


def ddim_reverse_step(process: Process, prediction: Prediction, x, step):
    """x one step noisier by the deterministic DDIM path."""
    following = process.alphas_cumprod_next
    direction = noise_of(process, x, step, prediction.clean)
    return (
        prediction.clean * at(np.sqrt(following), step)
        + at(np.sqrt(1 - following), step) * direction
    )


def guided(prediction: Prediction, process: Process, step, gradient) -> Prediction:
    """Moves the mean against a gradient of x (upstream's `--use_gradient_method`)."""
    shift = at(process.sqrt_alphas_cumprod, step) * gradient / 2
    return prediction._replace(mean=prediction.mean - shift)


def mean_flat(values, mask):
    """Mean over all but the batch; masked frames count as zeros but are still divided by.

    values: (b, t, h, w, c); mask: (b, t) or None; returns (b,).
    """
    if mask is not None:
        values = values * rearrange(mask, "b t -> b t 1 1 1")
    return jnp.mean(values, axis=(1, 2, 3, 4))


def normal_kl(mean1, log_variance1, mean2, log_variance2):
    """KL divergence in nats of two normal distributions, elementwise."""
    return 0.5 * (
        -1.0
        + log_variance2
        - log_variance1
        + jnp.exp(log_variance1 - log_variance2)
        + (mean1 - mean2) ** 2 * jnp.exp(-log_variance2)
    )


def discretized_log_likelihood(x, mean, log_scale):
    """Log probability in nats of 8-bit pixel values x in [-1, 1] under a normal distribution.

    The tails beyond +-0.999 are counted whole (Ho et al., equation 13), with upstream's tanh
    approximation of the normal distribution function.
    """

    def cdf(z):
        return 0.5 * (1.0 + jnp.tanh(np.sqrt(2.0 / np.pi) * (z + 0.044715 * z**3)))

    inverse = jnp.exp(-log_scale)
    above = cdf(inverse * (x - mean + 1 / 255))
    below = cdf(inverse * (x - mean - 1 / 255))
    log = lambda p: jnp.log(jnp.maximum(p, 1e-12))  # noqa: E731
    inside = log(above - below)
    return jnp.where(x < -0.999, log(above), jnp.where(x > 0.999, log(1 - below), inside))


def variational_term(process: Process, prediction: Prediction, clean, x, step, mask=None):
    """(b,) term of the ELBO at `step` in bits per dimension; at t = 0 the decoder's."""
    true_mean = posterior_mean(process, clean, x, step)
    true_log_variance = at(process.posterior_log_variance_clipped, step)
    kl = normal_kl(true_mean, true_log_variance, prediction.mean, prediction.log_variance)
    nll = -discretized_log_likelihood(clean, prediction.mean, 0.5 * prediction.log_variance)
    term = jnp.where(step == 0, mean_flat(nll, mask), mean_flat(kl, mask))
    return term / np.log(2.0)


def prior_term(process: Process, clean, mask=None):
    """(b,) KL in bits per dimension of the noisiest frames to the standard normal."""
    last = jnp.full(clean.shape[0], process.steps - 1)
    mean = at(process.sqrt_alphas_cumprod, last) * clean
    log_variance = at(process.log_one_minus_alphas_cumprod, last)
    return mean_flat(normal_kl(mean, log_variance, 0.0, 0.0), mask) / np.log(2.0)


def training_losses(process: Process, denoise, clean, step, noise, loss_mask, eval_mask):
    """Loss of each video at one timestep.

    Args:
      denoise: maps (x, step) to the network's output.
      clean: (b, t, h, w, c) frames.
      step: (b,) index into the process.
      noise: (b, t, h, w, c) standard normal.
      loss_mask: (b, t) frames that count; the mean still divides by all frames.
      eval_mask: (b, t) frames of the reported `eval-mse`.
    Returns:
      dict of (b,) values: `loss`, and `mse`, `eval-mse` (and `vb`) for the MSE loss. The KL loss
      ignores the masks, as upstream's does.
    """
    x = add_noise(process, clean, step, noise)
    output = denoise(x, step)
    if process.config.loss == "kl":
        prediction = predict(process, output, x, step, clip=False)
        term = variational_term(process, prediction, clean, x, step)
        return {"loss": term * process.steps}
    target = noise if process.config.predict == "noise" else clean
    error = jnp.square(target - output[..., : clean.shape[-1]])
    terms = {"mse": mean_flat(error, loss_mask), "eval-mse": mean_flat(error, eval_mask)}
    terms["loss"] = terms["mse"]
    if process.config.variance == "learned_range":
        mean, variance = jnp.split(output, 2, axis=-1)
        frozen = jnp.concatenate([jax.lax.stop_gradient(mean), variance], -1)
        prediction = predict(process, frozen, x, step, clip=False)
        vb = variational_term(process, prediction, clean, x, step, loss_mask)
        terms["vb"] = vb * process.steps / 1000.0
        terms["loss"] = terms["mse"] + terms["vb"]
    return terms


def bits_per_dimension(process: Process, denoise, clean, mask, noise, steps, clip: bool = True):
    """The ELBO's terms at the given steps (upstream `calc_bpd_loop_subsampled`).

    Args:
      denoise: maps (x, step) to the network's output.
      clean: (b, t, h, w, c) frames.
      mask: (b, t) latent frames; means divide by all frames.
      noise: maps the position i in `steps` to (b, t, h, w, c) standard normal noise.
      steps: (s, b) indices into the process, in the order of evaluation.
      clip: clamp predictions to [-1, 1].
    Returns:
      dict: `vb`, `xstart_mse`, `mse` of shape (b, s); `prior_bpd` and `total_bpd` of shape (b,).
    """

    def terms(i, step):
        fresh = noise(i)
        x = add_noise(process, clean, step, fresh)
        prediction = predict(process, denoise(x, step), x, step, clip)
        found = noise_of(process, x, step, prediction.clean)
        return {
            "vb": variational_term(process, prediction, clean, x, step, mask),
            "xstart_mse": mean_flat(jnp.square(prediction.clean - clean), mask),
            "mse": mean_flat(jnp.square(found - fresh), mask),
        }

    def body(_, inputs):
        return None, terms(*inputs)

    steps = jnp.asarray(steps)
    out = jax.lax.scan(body, None, (jnp.arange(steps.shape[0]), steps))[1]
    out = {name: values.T for name, values in out.items()}
    out["prior_bpd"] = prior_term(process, clean, mask)
    out["total_bpd"] = out["vb"].sum(1) + out["prior_bpd"]
    return out
