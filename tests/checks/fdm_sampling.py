"""Complete videos against upstream's: scheme, denoising with recorded noise, saved pixels."""

import jax
import jax.numpy as jnp
import numpy as np

from checks.fdm_diffusion import process_of
from checks.fdm_networks import load, video
from jaxvid.fdm import marking, sampler
from jaxvid.fdm.schemes import make_scheme


def check_sample_video(case):
    config, params = load(case)
    for number, run in enumerate(case.config["runs"]):
        process = process_of(
            case.config["diffusion_kwargs"] | {"timestep_respacing": run["timestep_respacing"]}
        )
        arrays = case.group(f"run{number}")
        tape = [video(arrays[name]) for name in sorted(arrays) if name.startswith("noise_")]
        assert len(tape) == run["noise_draws"]
        # Once with calls of upstream's sizes, once all padded to one static size.
        for size in (None, run["max_frames"]):
            found = complete(config, params, process, run, video(arrays["batch"]), tape, size)
            check_video(case, run, arrays, found, f"run{number}, size {size}")


def complete(config, params, process, run, truth, tape, size):
    """All calls of a run with the recorded noise; returns (b, T, h, w, c)."""
    scheme = make_scheme(
        run["scheme"], run["T"], run["num_obs"], run["max_frames"], run["step_size"]
    )

    @jax.jit
    def call(videos, frames, noise):
        x0 = sampler.gather_frames(videos, frames.indices)
        found = sampler.denoise_window(config, process, params, x0, frames, lambda i: noise[i])
        return sampler.scatter_latent(videos, found, frames)

    videos = truth.at[:, run["num_obs"] :].set(0)
    steps = []
    for step in scheme:
        draws, tape = tape[: process.steps + 1], tape[process.steps + 1 :]
        noise = jnp.stack(draws)
        missing = 0 if size is None else size - noise.shape[2]
        noise = jnp.pad(noise, [(0, 0), (0, 0), (0, missing)] + [(0, 0)] * 3)
        frames = sampler.make_window(step, noise.shape[2], len(truth))
        videos = call(videos, jax.tree.map(jnp.asarray, frames), noise)
        steps.append([list(step.observed), list(step.latent)])
    assert steps == run["indices"]
    assert not tape
    return videos


def check_video(case, run, arrays, found, name):
    found = np.asarray(found).transpose(0, 1, 4, 2, 3)
    tolerances = {"rtol": case.config["rtol"], "atol": case.config["atol"]}
    np.testing.assert_allclose(found, arrays["samples"], **tolerances, err_msg=name)
    saved = marking.quantise(found, truncate=True)
    wanted = arrays["samples_uint8"]
    seen = run["num_obs"]
    np.testing.assert_array_equal(saved[:, :seen], wanted[:, :seen], err_msg=name)
    # Rounding noise can move a value across a truncation boundary, or by the case's tolerance.
    most = max(1, int(np.ceil(case.config["atol"] * 127.5)))
    assert np.abs(saved.astype(int) - wanted.astype(int)).max() <= most, name


CHECKS = {"fdm/sample_video": check_sample_video}
