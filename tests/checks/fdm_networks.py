"""FDM networks, conversion, diffusion and training against upstream's PyTorch output."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from einops import rearrange

from jaxvid.fdm import diffusion, keys, model, train
from jaxvid.fdm.conditioning import bucket, sinusoid
from jaxvid.fdm.process import beta_schedule, kept_timesteps, make_process
from jaxvid.fdm.unet import (
    AttentionBlock,
    Frames,
    RelativePositions,
    UNetConfig,
    allowed_pairs,
    layout,
)


def video(a):
    """Upstream's (b, t, c, h, w) as ours."""
    return jnp.asarray(rearrange(a, "b t c h w -> b t h w c"))


def mask(a):
    return jnp.asarray(a.reshape(a.shape[:2]))


def config_of(kwargs: dict) -> UNetConfig:
    """The network of upstream's constructor arguments."""
    fields = {
        "image_size": kwargs["image_size"],
        "channels": kwargs["model_channels"],
        "channel_mult": tuple(kwargs["channel_mult"]),
        "res_blocks": kwargs["num_res_blocks"],
        "attention_at": tuple(kwargs["attention_resolutions"]),
        "heads": kwargs["num_heads"],
        "dropout": kwargs["dropout"],
        "scale_shift_norm": kwargs["use_scale_shift_norm"],
        "image_channels": kwargs["in_channels"],
        "out_channels": kwargs["out_channels"],
    }
    if "cond_emb_type" not in kwargs:
        return UNetConfig(**fields, heads_up=kwargs["num_heads_upsample"])
    indicators = {"channel": "observed+marginal", "duplicate": "duplicate", "all": "duplicate"}
    table = not kwargs["use_rpe_net"]
    buckets = [kwargs["bucket_params"][k] for k in ("alpha", "beta", "gamma")] if table else []
    return UNetConfig(
        **fields,
        indicator=indicators.get(kwargs["cond_emb_type"].removesuffix("-initzero"), "timestep"),
        spatial_encoding=kwargs["use_spatial_encoding"],
        frame_encoding=kwargs["use_frame_encoding"],
        centre_frames=kwargs["enforce_position_invariance"],
        train_frames=kwargs["T"],
        padding_attends=kwargs.get("allow_interactions_between_padding", True),
        positions="table" if table else "network",
        buckets=tuple(buckets),
    )


def frames_of(arrays: dict) -> Frames:
    marginal = arrays.get("kinda_marg_mask")
    return Frames(
        jnp.asarray(arrays["frame_indices"]),
        mask(arrays["obs_mask"]),
        mask(arrays["latent_mask"]),
        None if marginal is None else mask(marginal),
    )


def load(case):
    config = config_of(case.constructor_kwargs)
    return config, keys.parameters(case.weights(), config)


def check_unet(case):
    config, params = load(case)
    for variant in case.config["variants"]:
        arrays = case.group(variant)
        times = jnp.asarray(arrays["timesteps"])
        x, x0, frames = video(arrays["x"]), video(arrays["x0"]), frames_of(arrays)
        terms, seen_terms = conditioner(config, params, times, frames)
        out, seen = unet(config, params, x, x0, frames, terms)
        case.close(rearrange(out, "b t h w c -> b t c h w"), arrays["out"], variant)
        check_attention_maps(case, config, seen, arrays)
        check_activations(case, config, {**seen, **seen_terms}, terms, arrays)
    restored = keys.state_dict(params)
    original = case.weights()
    assert list(restored) == keys.parameter_order(original)
    for name, tensor in original.items():
        np.testing.assert_array_equal(restored[name], tensor, err_msg=name)


@functools.partial(jax.jit, static_argnums=0)
def conditioner(config, params, times, frames):
    variables = {"params": params["conditioner"]}
    terms, state = model.Conditioner(config).apply(
        variables, times, frames.indices, frames.observed, mutable=["intermediates"]
    )
    return terms, state["intermediates"]


@functools.partial(jax.jit, static_argnums=0)
def unet(config, params, x, x0, frames, terms):
    out, state = model.UNet(config).apply(
        {"params": params["unet"]},
        *(x, x0, frames, terms),
        capture_intermediates=True,
        mutable=["intermediates"],
    )
    return out, state["intermediates"]


def check_attention_maps(case, config, seen, arrays):
    inputs, _, outputs = layout(config)
    blocks = [b.name for s in inputs + outputs for b in s if b.kind == "attention"]
    for name, block in (("first", blocks[0]), ("last", blocks[-1])):
        if f"attn_temporal_{name}" in arrays:
            weights = seen[block]["temporal"]["weights"][0].mean(2)
            case.close(rearrange(weights, "b n t u -> (b n) t u"), arrays[f"attn_temporal_{name}"])


def check_activations(case, config, seen, terms, arrays):
    """Compares the intermediate activations that a case holds, by upstream's module names."""
    inputs, _, outputs = layout(config)
    first = next(b.name for s in inputs + outputs for b in s if b.kind == "attention")
    for name, wanted in arrays.items():
        if not name.startswith("act/"):
            continue
        name = name.removeprefix("act/")
        if name == "time_embed":
            found = jnp.repeat(seen["time_embed"][0], wanted.shape[0], 1)[0]
        elif name == "first_attention_block.temporal_attention.rpe_k.rpe_net":
            found = terms[first].key
        elif name == "first_attention_block.temporal_attention":
            out = seen[first]["temporal"]["__call__"][0]
            found = rearrange(out, "b t h w c -> b (h w) c t")
        else:
            module = first if name == "first_attention_block" else last_module(config, name)
            found = rearrange(seen[module]["__call__"][0], "b t h w c -> (b t) c h w")
        case.close(found, wanted, name)


def last_module(config, name: str) -> str:
    """Our module that yields the output of an upstream block or stage."""
    blocks = [b.name for part in layout(config) for stage in part for b in stage]
    ours = name.replace(".", "_")
    return ours if ours in blocks else [b for b in blocks if b.startswith(f"{ours}_")][-1]


def check_shapes(case):
    tables = sorted(path for path in case.folder.glob("*.json") if path.name != "case.json")
    assert tables
    for path in tables:
        table = case.json(path.name)
        wanted = {name: tuple(shape) for name, shape in table["keys"].items()}
        tensors = {name: np.broadcast_to(np.float32(0), shape) for name, shape in wanted.items()}
        arguments = {"image_size": 64, "num_res_blocks": 2, **table["overrides"]}
        config = keys.unet_config(arguments, tensors)
        expected = model.abstract_parameters(config)
        params = keys.parameters(tensors, config)
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)
        assert keys.parameter_order(wanted) == list(wanted)


def check_released(case):
    for name in case.config["files"]:
        loaded = keys.read_checkpoint(case.folder / name)
        assert loaded.arguments == case.config["config"]
        tensors = keys.state_dict(loaded.params)
        assert list(tensors) == case.config["optimizer_file"]["parameter_order"]
        if name.startswith("ema"):
            for key, (shape, total, size, first) in case.json("ema_tensor_checks.json").items():
                tensor = np.asarray(tensors[key], np.float64)
                assert list(tensor.shape) == shape, key
                np.testing.assert_allclose(tensor.sum(), total, rtol=1e-9, atol=1e-9)
                np.testing.assert_allclose(np.abs(tensor).sum(), size, rtol=1e-9)
                np.testing.assert_array_equal(tensor.ravel()[:2], first[: tensor.size])
            check_forward(case, loaded)


def check_forward(case, loaded):
    arrays = case.io
    call = jax.jit(functools.partial(model.network, loaded.network))
    x, x0, times = video(arrays["x"]), video(arrays["x0"]), jnp.asarray(arrays["timesteps"])
    out = call(loaded.params, x, x0, times, frames_of(arrays))
    case.close(rearrange(out, "b t h w c -> b t c h w"), arrays["ema_out"])


def check_lookup_attention(case):
    kwargs, arrays, weights = case.config["constructor_kwargs"], case.io, case.weights()
    buckets = tuple(kwargs["bucket_params"][k] for k in ("alpha", "beta", "gamma"))
    indices = jnp.asarray(arrays["frame_indices"])
    distances = indices[:, :, None] - indices[:, None, :]
    np.testing.assert_array_equal(bucket(distances, *buckets), arrays["bucket_ids"])
    np.testing.assert_array_equal(
        bucket(jnp.asarray(arrays["distance_range"]), *buckets), arrays["bucket_of_range"]
    )
    rows = 2 * buckets[1] + 1
    tables = (
        jnp.asarray(weights[f"temporal_attention.rpe_{p}.lookup_table_weight"])[
            bucket(distances, *buckets) % rows
        ]
        for p in "qkv"
    )
    params = {
        kind: {
            "norm": {
                "scale": weights[f"{kind}_attention.norm.weight"],
                "bias": weights[f"{kind}_attention.norm.bias"],
            },
            **{
                name: {
                    "kernel": weights[f"{kind}_attention.{name}.weight"].T,
                    "bias": weights[f"{kind}_attention.{name}.bias"],
                }
                for name in ("qkv", "proj_out")
            },
        }
        for kind in ("spatial", "temporal")
    }
    config = UNetConfig(channels=kwargs["channels"], heads=kwargs["num_heads"])
    b = len(indices)
    used = mask(arrays["attn_mask"])
    frames = Frames(indices, jnp.zeros_like(used), used)
    x = rearrange(arrays["x"], "(b t) c h w -> b t h w c", b=b)
    out = AttentionBlock(kwargs["num_heads"], config).apply(
        {"params": params}, x, RelativePositions(*tables), allowed_pairs(frames, True)
    )
    case.close(rearrange(out, "b t h w c -> (b t) c h w"), arrays["out"])
    check_embeddings(case, kwargs["channels"])


def check_embeddings(case, channels):
    arrays = case.group("frame_embedding")
    indices, wanted = jnp.asarray(arrays["frame_indices"]), arrays["out"]
    period = 10 * 20  # the case's note: T_video = 20
    case.close(sinusoid(indices, wanted.shape[-1], period), wanted)
    centred = indices - indices.mean(1, keepdims=True)
    case.close(sinusoid(centred, wanted.shape[-1], period), arrays["out_position_invariant"])
    arrays = case.group("timestep_embedding")
    for name, wanted in arrays.items():
        if name.startswith("out_dim"):
            case.close(sinusoid(jnp.asarray(arrays["t"]), wanted.shape[-1]), wanted)


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


def denoiser(config, params, process, x0, frames):
    times = jnp.asarray(process.network_timesteps)

    def denoise(x, step):
        return model.network(config, params, x, x0, times[step], frames)

    return denoise


def check_sampling_steps(case):
    config, params = load(case)
    x0, frames = video(case.io["x0"]), frames_of(case.io)
    for name, setting in case.config["settings"].items():
        process = process_of(setting["diffusion_kwargs"])
        denoise = jax.jit(denoiser(config, params, process, x0, frames))
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
    from jaxvid.fdm.sampler import denoise_loop

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
    from jaxvid.fdm.elbo import gather_step

    config, params = load(case)
    process = process_of(case.config["diffusion_kwargs"])
    batch = video(case.io["batch"])
    for name, setting in case.config["cases"].items():
        clean, frames = gather_step(batch, setting["obs_indices"], setting["lat_indices"])
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
    "fdm/unet_refactored": check_unet,
    "fdm/unet_paper": check_unet,
    "fdm/state_dict_shapes": check_shapes,
    "fdm/released_format": check_released,
    "fdm/rpe_lookup_attention": check_lookup_attention,
    "fdm/schedules": check_schedules,
    "fdm/sampling_steps": check_sampling_steps,
    "fdm/training_loss": check_training_loss,
    "fdm/bpd": check_bpd,
}
