"""FDM's schedules, sampling steps, losses and training against upstream's PyTorch output."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from einops import rearrange

from checks.fdm_networks import frames_of, load, video
from jaxvid.fdm import diffusion, elbo, keys, model, train
from jaxvid.fdm.process import beta_schedule, kept_timesteps, make_process
from jaxvid.fdm.sampler import denoise_loop


def process_of(kwargs: dict):
    return make_process(keys.diffusion_config(kwargs))


def check_schedules(case):
    for name, wanted in case.group("betas").items():
        schedule, steps = name.rsplit("_", 1)
        case.close(beta_schedule(schedule, int(steps)), wanted, name)
    for setting, kwargs in case.config["derived"].items():
        process = process_of(kwargs)
        for name, wanted in case.group(f"derived/{setting}").items():
            case.close(getattr(process, name), wanted, f"{setting}/{name}")
    for row in case.json("respacing.json"):
        respacing = row["section_counts"]
        respacing = respacing if isinstance(respacing, str) else ",".join(map(str, respacing))
        if "error" in row:
            with pytest.raises(ValueError):
                kept_timesteps(row["num_timesteps"], respacing)
        else:
            assert kept_timesteps(row["num_timesteps"], respacing).tolist() == row["steps"]


network = jax.jit(model.network, static_argnums=0)  # one program for all settings of a case


def denoiser(config, params, process, x0, frames):
    times = jnp.asarray(process.network_timesteps)

    def denoise(x, step):
        return network(config, params, x, x0, times[step], frames)

    return denoise


def check_sampling_steps(case):
    config, params = load(case)
    x0, frames = video(case.io["x0"]), frames_of(case.io)
    for name, setting in case.config["settings"].items():
        process = process_of(setting["diffusion_kwargs"])
        denoise = denoiser(config, params, process, x0, frames)
        arrays, kwargs = case.group(name), setting["call_kwargs"]
        if setting["kind"].endswith("_loop"):
            check_loop(case, process, denoise, arrays, setting["kind"], kwargs, name)
        else:
            check_step(case, process, denoise, arrays, setting["kind"], kwargs, name)


def check_step(case, process, denoise, arrays, kind, kwargs, name):
    x, step = video(arrays["x"]), jnp.asarray(arrays["t"])
    prediction = diffusion.predict(
        process, denoise(x, step), x, step, kwargs.get("clip_denoised", True)
    )
    noise = video(arrays["noise"]) if "noise" in arrays else None
    if kind == "p_sample":
        sample = diffusion.ancestral_step(process, prediction, x, step, noise)
    elif kind == "ddim_sample":
        sample = diffusion.ddim_step(process, prediction, x, step, noise, kwargs["eta"])
    else:
        sample = diffusion.ddim_reverse_step(process, prediction, x, step)
    to_theirs = "b t h w c -> b t c h w"
    atol = case.config["atol_pred_xstart"]
    np.testing.assert_allclose(
        rearrange(prediction.clean, to_theirs),
        arrays["pred_xstart"],
        rtol=case.config["rtol"],
        atol=atol,
        err_msg=name,
    )
    case.close(rearrange(prediction.mean, to_theirs), arrays["mean"], name)
    case.close(prediction.log_variance[:, 0, 0, 0, 0], arrays["log_variance"], name)
    case.close(rearrange(sample, to_theirs), arrays["sample"], name)


def check_loop(case, process, denoise, arrays, kind, kwargs, name):
    tape = jnp.stack([video(noise) for noise in arrays["noise_tape"]])
    sample = denoise_loop(
        process,
        denoise,
        lambda i: tape[i],
        method="ddpm" if kind.startswith("p_") else "ddim",
        eta=kwargs.get("eta", 0.0),
        clip=kwargs.get("clip_denoised", True),
    )
    case.close(rearrange(sample, "b t h w c -> b t c h w"), arrays["sample"], name)


def check_training_loss(case):
    config, params = load(case)
    clean, noise, frames = video(case.io["x_start"]), video(case.io["noise"]), frames_of(case.io)
    for name, kwargs in case.config["diffusion_kwargs"].items():
        process = process_of(kwargs)
        arrays = case.group(name)
        step = jnp.asarray(arrays["t"])

        def loss(params, process=process, step=step):
            denoise = denoiser(config, params, process, clean, frames)
            terms = diffusion.training_losses(
                process, denoise, clean, step, noise, 1 - frames.observed, frames.latent
            )
            return terms["loss"].mean(), terms

        (_, terms), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        x = diffusion.add_noise(process, clean, step, noise)
        case.close(rearrange(x, "b t h w c -> b t c h w"), arrays["x_t"], name)
        for term in terms.keys() & arrays.keys():
            case.close(terms[term], arrays[term], f"{name}/{term}")
        assert ("mse" in arrays) == ("mse" in terms)
        check_gradients(case, gradient, arrays, name)


def check_gradients(case, gradient, arrays, name):
    tolerance = case.config["rtol_grad"]
    norm = np.sqrt(
        sum(np.square(np.asarray(g, np.float64)).sum() for g in jax.tree.leaves(gradient))
    )
    np.testing.assert_allclose(norm, arrays["grad_norm"], rtol=tolerance, err_msg=name)
    theirs = keys.state_dict(jax.tree.map(np.asarray, gradient))
    for key, wanted in arrays.items():
        if key.startswith("grad/"):
            found = theirs[key.removeprefix("grad/")]
            scale = np.abs(wanted).max()
            np.testing.assert_allclose(
                found, wanted, rtol=tolerance, atol=tolerance * scale, err_msg=key
            )


def check_bpd(case):
    config, params = load(case)
    process = process_of(case.config["diffusion_kwargs"])
    batch = video(case.io["batch"])
    for name, setting in case.config["cases"].items():
        clean, frames = elbo.gather_step(batch, setting["obs_indices"], setting["lat_indices"])
        t_seq = setting["t_seq"]
        found = bpd(
            config,
            params,
            process,
            clean,
            frames,
            case.group(name),
            t_seq,
            setting["clip_denoised"],
        )
        scale = clean.shape[1]
        for term, wanted in case.group(name).items():
            if term != "noise_tape":
                value = found[term].sum(1) if found[term].ndim == 2 else found[term]
                case.close(value * scale, wanted, f"{name}/{term}")
    arrays = case.group("terms")
    if arrays:
        arrays["latent_mask"] = 1 - arrays["obs_mask"]
        frames = frames_of(arrays)
        found = bpd(config, params, process, video(arrays["x_start"]), frames, arrays, None, True)
        for term in ("total_bpd", "prior_bpd", "vb", "xstart_mse", "mse"):
            case.close(found[term], arrays[term], f"terms/{term}")


def bpd(config, params, process, clean, frames, arrays, t_seq, clip):
    tape = jnp.stack([video(noise) for noise in arrays["noise_tape"]])
    if t_seq is None:
        steps = np.repeat(np.arange(process.steps)[::-1, None], clean.shape[0], 1)
    else:
        steps = np.array(t_seq).T
    denoise = denoiser(config, params, process, clean, frames)
    call = jax.jit(
        lambda tape: diffusion.bits_per_dimension(
            process, denoise, clean, frames.latent, lambda i: tape[i], steps, clip
        )
    )
    return call(tape)


def check_train_step(case):
    config, params = load(case)
    loop = case.config["loop"]
    settings = train.TrainConfig(
        batch_size=loop["batch_size"],
        microbatch=loop["microbatch"],
        max_frames=loop["max_frames"],
        lr=loop["lr"],
        lr_anneal_steps=loop["lr_anneal_steps"],
        weight_decay=loop["weight_decay"],
        ema_rates=tuple(float(rate) for rate in loop["ema_rate"].split(",")),
        pad_with_random_frames=loop["pad_with_random_frames"],
        microbatch_gradients="sum",
    )
    process = process_of(case.config["diffusion_kwargs"])
    gradient = jax.jit(functools.partial(train.gradient, settings, config, process))
    state = train.initial_state(settings, params)
    calls = case.config["call_to_step"]
    for wanted in case.config["steps"]:
        total = jax.tree.map(jnp.zeros_like, params)
        for call in (i for i, step in enumerate(calls) if step == wanted["step"]):
            arrays = case.group(f"call{call}")
            batch = train.Batch(
                video(arrays["x_start"]),
                frames_of(arrays),
                jnp.asarray(arrays["t"]),
                jnp.ones(arrays["t"].shape),
                video(arrays["noise"]),
            )
            found, terms = gradient(state.params, batch)
            case.close(terms["loss"], arrays["loss"], f"call{call}/loss")
            case.close(terms["eval-mse"], arrays["eval-mse"], f"call{call}/eval-mse")
            total = jax.tree.map(jnp.add, total, found)
        norm = optax.tree.norm(total)
        np.testing.assert_allclose(norm, wanted["grad_norm"], rtol=case.config["rtol"])
        state = train.update(settings, state, total)
    check_final(case, params, state)


def check_final(case, initial, state):
    before = keys.state_dict(initial)
    order = keys.parameter_order(before)
    final = {"model": state.params} | {f"ema_{rate}": ema for rate, ema in state.ema.items()}
    for name, tree in final.items():
        tensors = keys.state_dict(jax.tree.map(np.asarray, tree))
        for key, wanted in case.group(f"final/{name}").items():
            if key != "param_abs_sum":
                updates = tensors[key] - before[key], wanted - before[key]
                case.close(*updates, f"{name}/{key}")
        sums = case.io["final/param_abs_sum" if name == "model" else f"final/{name}/param_abs_sum"]
        found = [np.abs(np.asarray(tensors[key], np.float64)).sum() for key in order]
        # Adam moves weights with vanishing gradients by the sign of rounding noise, at most lr.
        np.testing.assert_allclose(found, sums, rtol=1e-3, atol=2e-2)


CHECKS = {
    "fdm/train_step": check_train_step,
    "fdm/schedules": check_schedules,
    "fdm/sampling_steps": check_sampling_steps,
    "fdm/training_loss": check_training_loss,
    "fdm/bpd": check_bpd,
}
