"""FDM networks and their conversion against upstream's PyTorch output."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from jaxvid.fdm import keys, model
from jaxvid.fdm.conditioning import bucket, sinusoid
from jaxvid.fdm.layers import AttentionBlock, RelativePositions
from jaxvid.fdm.unet import Frames, UNetConfig, allowed_pairs, layout


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
    b = len(indices)
    used = mask(arrays["attn_mask"])
    frames = Frames(indices, jnp.zeros_like(used), used)
    x = rearrange(arrays["x"], "(b t) c h w -> b t h w c", b=b)
    out = AttentionBlock(kwargs["num_heads"]).apply(
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


CHECKS = {
    "fdm/unet_refactored": check_unet,
    "fdm/unet_paper": check_unet,
    "fdm/state_dict_shapes": check_shapes,
    "fdm/released_format": check_released,
    "fdm/rpe_lookup_attention": check_lookup_attention,
}
