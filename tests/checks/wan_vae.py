"""Goldens of the Wan2.1 VAE: layers, whole and streamed coding, both wrappers, video files."""

import functools
import re

import jax
import numpy as np
from einops import rearrange

from jaxvid.core import torch_file
from jaxvid.core.convert import CONV3D, natural, to_ours
from jaxvid.wan import vae, vae_keys, vae_layers

OURS = {"conv1": "conv_in", "head.2": "conv_out"}  # names of layers beside the numbered ones
# Each program runs once on tiny arrays: most of the time would go into optimising it.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
WHOLE = (vae.decode, vae.encode)
LAYERS = {
    "rms3d": lambda width: vae_layers.RMSNorm(),
    "attn": lambda width: vae_layers.FrameAttention("float32"),
    "conv3": lambda width: vae_layers.CausalConv(width, "float32"),
    "res": lambda width: vae_layers.Residual(width, "float32"),
    "upsample3d": lambda width: vae_layers.Upsample(True, "float32"),
    "upsample2d": lambda width: vae_layers.Upsample(False, "float32"),
    "downsample3d": lambda width: vae_layers.Downsample(True, "float32"),
    "downsample2d": lambda width: vae_layers.Downsample(False, "float32"),
}
LAYER_RULES = [
    vae_keys.Rule("rms3d.gamma", "rms3d/scale", vae_keys.GAIN),
    *vae_keys.attention_rules("attn", "attn"),
    *vae_keys.pair("conv3", "conv3", CONV3D),
    *vae_keys.residual_rules("res", "res"),
    *vae_keys.resample_rules(r"{name:(up|down)sample\dd}", "{name}"),
]


def last(video):
    """(b, c, t, h, w) to (b, t, h, w, c)"""
    return rearrange(video, "b c t h w -> b t h w c")


def first(video):
    """(b, t, h, w, c) to (b, c, t, h, w)"""
    return rearrange(np.asarray(video), "b t h w c -> b c t h w")


def load(case, **changes):
    """Config and parameters, through the converter, of every file with weights in the folder."""
    theirs = case.config["config"]
    assert not theirs["attn_scales"], "upstream itself cannot run these"
    changes |= {"mean": tuple(case.config["latent_mean"]), "std": tuple(case.config["latent_std"])}
    expected = vae.VaeConfig(
        width=theirs["dim"],
        latent_channels=theirs["z_dim"],
        multipliers=tuple(theirs["dim_mult"]),
        blocks=theirs["num_res_blocks"],
        halve_time=tuple(theirs["temperal_downsample"]),
        **changes,
    )
    found = []
    for file in case.weight_files():
        state = torch_file.load(file)
        assert vae_keys.config_of(state, **changes) == expected
        found.append(vae_keys.parameters(expected, state))
        back = vae_keys.state_dict(found[-1])
        assert set(back) == set(state)
        for name, array in state.items():
            np.testing.assert_array_equal(back[name], array, name)
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, found[0], other)
    return expected, found[0]


def jitted(function, config, params, **settings):
    """A function of `vae` with config and parameters filled in."""
    return functools.partial(jit(functools.partial(function, config, **settings)), params)


def coder(config, params):
    return (jitted(function, config, params) for function in (vae.encode_next, vae.decode_next))


def check_core(case):
    config, params = load(case)
    encode, decode = coder(config, params)
    io = case.io
    video, latents = last(io["x"]), last(io["z"])
    case.close(first(encode(video)[0]), io["mu"], "mu")
    for name in sorted(name for name in io if name.startswith("mu_T")):
        case.close(first(encode(video[:, : int(name[4:])])[0]), io[name], name)
    apply = jit(functools.partial(vae.Encoder(config).apply, capture_intermediates=True))
    (moments, _), captured = apply({"params": params["encoder"]}, video)
    case.close(first(moments), io["moments"], "moments")
    head = captured["intermediates"]["conv_out"]["__call__"][0][0]
    case.close(first(head), io["enc_head"], "enc_head")
    case.close(first(decode(latents)[0]), io["dec"], "dec")
    pieces = stream(decode, latents, case.config["stream_partition"])
    for number, piece in enumerate(pieces):
        case.close(first(piece), io[f"dec_stream_{number}"], f"dec_stream_{number}")
    decode, encode = (jitted(function, config, params, step=1) for function in WHOLE)
    case.close(first(decode(latents)), io["dec"], "dec by ones")
    case.close(first(encode(video)), io["mu"], "mu by ones")


def stream(call, x, partition):
    """Outputs of successive calls on pieces of x along time."""
    past, outputs, start = None, [], 0
    for size in partition:
        piece, past = call(x[:, start : start + size], past)
        outputs.append(piece)
        start += size
    return outputs


def check_layers(case):
    state = {name: np.asarray(a) for name, a in case.weights().items()}
    params = to_ours(state, LAYER_RULES)
    names = {name.split(".")[0] for name in case.io}
    assert names <= set(LAYERS), f"unknown layers {sorted(names - set(LAYERS))}"
    for name in sorted(names):
        arrays = {
            key[len(name) + 1 :]: a for key, a in case.io.items() if key.startswith(f"{name}.")
        }
        check_layer(case, name, params[name], arrays)


def check_layer(case, name, params, arrays):
    """One layer, called with each chunk in turn."""
    outputs = sorted((key for key in arrays if key.startswith("y")), key=natural)
    layer = LAYERS[name](arrays[outputs[0]].shape[1])
    apply, past = jit(layer.apply), None
    for key in outputs:
        number = key[1:]
        x = last(arrays[f"x{number}"])
        if name in ("rms3d", "attn"):
            y = apply({"params": params}, x)
        else:
            y, past = apply({"params": params}, x, past)
        case.close(first(y), arrays[key], f"{name}.{key}")
        if f"cache{number}" in arrays:
            cache = first(past["time_conv"])
            case.close(cache, arrays[f"cache{number}"], f"{name}.cache{number}")


def check_trace(case):
    config, params = load(case)
    latents, video = last(case.io["z"]), last(case.io["x"])
    mean, scale = vae.constants(config)
    plain = latents / scale + mean
    pieces = [plain[:, i : i + 1] for i in range(plain.shape[1])]
    slots = trace(case, "step", "decoder", vae.Decoder(config), params, pieces)
    case.close(first(np.concatenate([s["post_quant"] for s in slots], 1)), case.io["conv2_out"])
    stride = 4  # frames of upstream's calls after the first
    pieces = [video[:, :1]]
    pieces += [video[:, i : i + stride] for i in range(1, video.shape[1], stride)]
    trace(case, "estep", "encoder", vae.Encoder(config), params, pieces)


def trace(case, word, side, module, params, pieces):
    """Compares all activations and cache slots of one side; returns the outputs by our names."""
    past, outputs = None, []
    apply = jit(functools.partial(module.apply, capture_intermediates=True))
    for number, piece in enumerate(pieces):
        (_, past), captured = apply({"params": params[side]}, piece, past)
        found = {
            name: of["__call__"][0]
            for name, of in captured["intermediates"].items()
            if "__call__" in of
        }
        found = {name: y[0] if isinstance(y, tuple) else y for name, y in found.items()}
        outputs.append(found)
        prefix = f"{word}{number}."
        slots = in_order(past)
        for name in (name for name in case.io if name.startswith(prefix)):
            key = name[len(prefix) :]
            if key.startswith("cache"):
                theirs = case.io[name]
                ours = first(slots[int(key[5:])])[:, :, -theirs.shape[2] :]
            else:
                ours, theirs = first(found[our_name(key, side)]), case.io[name]
            case.close(ours, theirs, name)
    return outputs


def outputs_of(captured):
    """Name of a layer to its output, without the past that it returns besides."""
    found = {name: of["__call__"][0] for name, of in captured.items() if name != "__call__"}
    return {name: y[0] if isinstance(y, tuple) else y for name, y in found.items()}


def our_name(name, side):
    name = name.removeprefix(side).removeprefix(".") or "head.2"
    name = re.sub(r"middle\.(\d+)", r"mid_\1", name)
    name = re.sub(r"(down|up)samples\.(\d+)", r"\1_\2", name)
    return OURS.get(name, name)


def in_order(past):
    """Cache slots in upstream's order, that of execution."""
    lists = ("mid", "up") if "up_0" in past else ("down", "mid")
    parts = ("conv_in", *lists, "conv_out")

    def place(path):
        part = [i for i, start in enumerate(parts) if path[0].key.startswith(start)]
        return part, natural(path[0].key), [key.key for key in path[1:]]

    leaves = jax.tree_util.tree_flatten_with_path(past)[0]
    return [leaf for path, leaf in sorted(leaves, key=lambda pair: place(pair[0]))]


def whole_frames(config, video):
    """Without the surplus frames that upstream drops without a word."""
    return video[:, : (video.shape[1] - 1) // config.time_stride * config.time_stride + 1]


def check_longlive_wrapper(case):
    """Layout (b, t, c, h, w); decoded videos are clipped to [-1, 1]."""
    config, params = load(case)
    io = {name: np.moveaxis(a, 2, -1) if a.ndim == 5 else a for name, a in case.io.items()}
    pixel = whole_frames(config, last(case.io["pixel"]))
    latents = io["latent"]
    encode, decode = coder(config, params)
    case.close(encode(pixel)[0], io["latent_from_pixel"], "latent_from_pixel")
    case.close(clip(decode(latents)[0]), io["video"], "video")
    for number, piece in enumerate(stream(decode, latents[:1], case.config["cached_partition"])):
        case.close(clip(piece), io[f"video_cached_{number}"], f"video_cached_{number}")
    size = case.config["chunk_size"]
    chunked = jitted(vae.decode_with_seams, config, params, chunk=size)(latents)
    case.close(clip(chunked), io["video_chunked"], "video_chunked")
    check_half_precision(case, pixel, latents, io, {"video": clip})


def check_half_precision(case, video, latents, io, shown):
    """bfloat16 against float32; with upstream's rounding where the case holds its constants."""
    rounded = "mean_bf16" in io
    config, params = load(case, dtype="bfloat16", round_constants=rounded)
    encode, decode = coder(config, params)
    for name, limit in case.config["bf16_tolerance"]["rms"].items():
        full = name.removesuffix("_bf16")
        call, x = (encode, video) if full.startswith("latent") else (decode, latents)
        ours = shown.get(full, np.asarray)(call(x)[0])
        error = np.sqrt(np.mean(np.square(ours - io[full])))
        assert error <= 2 * limit, f"{name}: rms {error} of {limit}"
    if rounded:
        mean, scale = vae.constants(config)
        np.testing.assert_array_equal(mean.astype(np.float32), io["mean_bf16"])
        np.testing.assert_array_equal(scale.astype(np.float32), io["inv_std_bf16"])


def clip(video):
    return np.clip(video, -1, 1)


def check_cosmos_interface(case):
    """Layout (b, c, t, h, w); not clipped."""
    config, params = load(case)
    io = {name: last(a) for name, a in case.io.items()}
    video = whole_frames(config, io["video_u8"].astype(np.float32) / 127.5 - 1)
    encode, decode = coder(config, params)
    case.close(encode(video)[0], io["latent"], "latent")
    window = case.config["temporal_window"] // config.time_stride
    by_windows = jitted(vae.encode, config, params, step=window)
    case.close(by_windows(video), io["latent"], "latent by windows")
    recon = decode(io["z"])[0]
    case.close(recon, io["recon"], "recon")
    case.close(np.clip((recon + 1) / 2, 0, 1), io["recon01"], "recon01")
    check_half_precision(case, video, io["z"], io, {})


CHECKS = {
    "wan_vae/core": check_core,
    "wan_vae/layers": check_layers,
    "wan_vae/trace": check_trace,
    "wan_vae/longlive_wrapper": check_longlive_wrapper,
    "wan_vae/cosmos_interface": check_cosmos_interface,
}
