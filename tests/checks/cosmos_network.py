"""Checks of cosmos's golden cases: the network, its parts, its files and its training step."""

import contextlib
import dataclasses
import functools
import json
import re
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from safetensors.numpy import save_file
from small_wan import quick_jit

from jaxvid.core import rope
from jaxvid.core.convert import to_ours, to_theirs
from jaxvid.cosmos import blocks, dit, files, keys, losses, model


@contextlib.contextmanager
def sources(case, file="weights.safetensors"):
    """The case's weights, under upstream's prefix, and its network as a settings file."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "net.json"
        settings.write_text(json.dumps(case.config["config"]["net"]))
        weights = case.folder / file
        if file == "weights.safetensors":
            weights = Path(folder) / file
            save_file({f"net.{name}": a for name, a in case.weights().items()}, weights)
        yield [weights, settings]


def load(case, file="weights.safetensors", kind="cosmos_multiview"):
    """Network and parameters of the case's file, through the converter."""
    with sources(case, file) as paths:
        params, info = files.convert(paths, kind)
        params = jax.tree.map(lambda a: np.asarray(a, np.float32), params)
    return dataclasses.replace(files.network_of(info), dtype="float32"), params


def by_view(array, views: int):
    """(b, c, (v t), h, w) to (b, v, t, h, w, c)."""
    return rearrange(jnp.asarray(array), "b c (v t) h w -> b v t h w c", v=views)


def theirs(array):
    return rearrange(array, "b v t h w c -> b c (v t) h w")


def inputs(case, views: int):
    """What the network takes beside latents, timestep and scale."""
    io = case.io
    words = rearrange(jnp.asarray(io["text"]), "b (v m) c -> b v m c", v=views)
    given = by_view(io["condition_mask"], views)[..., 0, 0, 0]
    padding = io.get("padding_mask")
    return {
        "text": words,
        "control": by_view(io["control_latent"], views),
        "given": given,
        "view_ids": jnp.asarray(io["view_indices"][0].reshape(views, -1)[:, 0]),
        "padding": None if padding is None else jnp.asarray(padding[:, 0]),
    }


@functools.partial(quick_jit, static_argnums=0)
def velocity(config, params, latents, timestep, scale, text, control, **rest):
    context = model.text_context(config, params, text)
    return model.velocity(
        config, params, latents, timestep, context, control, control_scale=scale, **rest
    )


def check_network(case, kind="cosmos_multiview"):
    config, params = load(case, kind=kind)
    facts, io = case.config["config"], case.io
    views = facts["n_views"]
    latents, rest = by_view(io["x"], views), inputs(case, views)
    timestep = jnp.asarray(io["timesteps"][:, 0])
    for name, scale in (("out", facts.get("control_scale", 1.0)), ("out_control_scale0", 0.0)):
        if name in io:
            found = velocity(config, params, latents, timestep, scale, **rest)
            case.close(theirs(found), io[name], name)


def check_release(case):
    config, params = load(case, "weights.pt")
    views = case.config["config"]["n_views"]
    timestep = jnp.asarray(case.io["timesteps"][:, 0])
    latents = by_view(case.io["x"], views)
    found = velocity(config, params, latents, timestep, 1.0, **inputs(case, views))
    case.close(theirs(found), case.io["out"], "out")


def check_rope(case):
    io, facts = case.io, case.config["config"]

    def table(width, grid, ratios_hwt, seconds=1.0):
        h, w, t = ratios_hwt
        positions = [np.arange(n) for n in grid]
        positions[0] = positions[0] * seconds
        axes = rope.stretched_axes(width, positions, (t, h, w))
        half = np.asarray(rope._spread(*map(jnp.asarray, axes)))
        return np.concatenate([half, half], axis=-1).reshape(*grid, width)

    small = facts["small"]
    grid = (small["frames_per_view"], small["H"], small["W"])
    found = table(small["head_dim"], grid, small["ratios_hwt"])
    found = np.concatenate([found] * small["n_cameras"])
    case.close(found, io["table_small"], "small")
    real = facts["real"]
    found = table(real["head_dim"], (real["T"], real["H"], real["W"]), real["ratios_hwt"])
    case.close(found[:, 0, 0], io["real_t_axis"], "t")
    case.close(found[0, :, 0], io["real_h_axis"], "h")
    case.close(found[0, 0], io["real_w_axis"], "w")
    case.close(found[tuple(io["real_points_thw"].T)], io["real_points"], "points")
    modulated = facts["fps_mod"]
    seconds = modulated["base_fps"] / modulated["fps"]
    found = table(small["head_dim"], grid, modulated["ratios_hwt"], seconds)
    case.close(found.reshape(io["fps_mod_table"].shape), io["fps_mod_table"], "fps")
    turned = rope.rotate_halves(jnp.asarray(io["apply_q"]), rope_of(io["apply_freqs"]))
    case.close(turned, io["apply_out"], "rotation")


def rope_of(angles) -> rope.Rope:
    """Upstream's table (n, 1, 1, d) of both halves."""
    half = angles[:, 0, 0, : angles.shape[-1] // 2]
    return rope.Rope(np.cos(half), np.sin(half))


def layer(params, stack: str, number: int):
    return jax.tree.map(lambda a: a[number], params[stack])


def shape_of(facts: dict) -> tuple:
    """Arguments of a block."""
    width = facts["x_dim"]
    hidden = int(facts.get("mlp_ratio", 4.0) * width)
    return width, facts["num_heads"], hidden, facts["adaln_lora_dim"], False, jnp.float32


def scene(io, views: int, sizes) -> blocks.Scene:
    text = rearrange(io["context"], "b (v m) c -> b v m c", v=views)
    return blocks.Scene(io["emb"][:, 0], io["adaln_lora"][:, 0], text, rope_of(io["rope"]), sizes)


def check_block(case):
    io, facts = case.io, case.config["config"]
    tensors = {re.sub(r"^block\.", "blocks.0.", n): a for n, a in case.weights().items()}
    params = to_ours(tensors, keys.RULES)
    x = rearrange(io["x"], "b t h w c -> b 1 (t h w) c")
    shared_by_blocks = scene(io, 1, (1, x.shape[2]))
    run = quick_jit(lambda p: blocks.Block(*shape_of(facts)).apply(p, x, shared_by_blocks))
    found = run({"params": layer(params, "blocks", 0)})
    case.close(found.reshape(io["out"].shape), io["out"], "block")
    patch = io["patch_in"].shape[-1] // io["patch_out"].shape[-2]
    pattern = "b c t (h m) (w n) -> b t h w (c m n)"
    patches = rearrange(io["patch_in"], pattern, m=patch, n=patch)
    case.close(patches @ params["x_embedder"]["kernel"], io["patch_out"], "patches")
    width = facts["x_dim"]
    waves = dit.sinusoid(io["timesteps"], width)
    case.close(waves, io["t_sinusoid"], "sinusoid")
    time = {"params": params["time"] | {"norm": {"scale": np.ones(width, np.float32)}}}
    normed, shared = dit.Time(width).apply(time, io["timesteps"][:, 0])
    case.close(shared[:, None], io["t_adaln_lora"], "time")
    root = np.sqrt(np.square(io["t_emb"]).mean(-1, keepdims=True) + blocks.EPSILON)
    case.close(normed[:, None], io["t_emb"] / root, "normed sinusoid")
    final = dit.Final(width, facts["adaln_lora_dim"], io["final_out"].shape[-1])
    x = rearrange(io["final_x"], "b t h w c -> b 1 (t h w) c")
    emb, shared = io["final_emb"][:, 0], io["final_adaln_lora"][:, 0]
    found = final.apply({"params": params["final"]}, x, emb, shared)
    case.close(found.reshape(io["final_out"].shape), io["final_out"], "final layer")


def check_multiview(case):
    io, facts = case.io, case.config["config"]
    names = {"enc": "control_blocks.", "aware.": "blocks.0."}
    start = re.compile("^(enc|aware\\.)")
    tensors = {start.sub(lambda m: names[m[1]], n): a for n, a in case.weights().items()}
    params = to_ours(tensors, keys.RULES)
    views = facts["n_views"]
    pattern = "b (v t) h w c -> b v (t h w) c"
    x, c = (rearrange(io[name], pattern, v=views) for name in ("x", "control"))
    # upstream's angles repeat for every view
    whole = scene(io, views, (views, x.shape[2]))
    whole = whole._replace(rope=jax.tree.map(lambda a: a[: x.shape[2]], whole.rope))
    shape = shape_of(facts)
    c = c @ params["control_in"]["kernel"] + params["control_in"]["bias"] + x
    control, base = (
        quick_jit(lambda p, x, block=block: block.apply({"params": p}, x, whole))
        for block in (blocks.ControlBlock(*shape), blocks.Block(*shape))
    )
    for number in range(len(params["control_blocks"]["after"]["bias"])):
        c, hint = control(layer(params, "control_blocks", number), c)
        case.close(hint.reshape(io["x"].shape), io["hints"][number], f"hint {number}")
        stack = io[f"enc{number}_stack"]
        case.close(c.reshape(io["x"].shape), stack[-1], f"control {number}")
    found = base(layer(params, "blocks", 0), x)
    case.close(found.reshape(io["x"].shape), io["aware_out_scale0"], "without hint")
    hint = io["hints"][facts["aware_block_id"]]
    found = found.reshape(hint.shape) + facts["control_scale"] * hint
    case.close(found, io["aware_out"], "with hint")


def check_train_step(case):
    config, params = load(case)
    io, facts = case.io, case.config["config"]
    views = facts["n_views"]
    rest = inputs(case, views)
    context = model.text_context(config, params, rest.pop("text"))
    clean, noise = by_view(io["x0"], views), by_view(io["epsilon"], views)
    sigma = losses.sigma_of(jnp.asarray(io["u"]), facts["shift"])
    case.close(sigma[:, None], io["sigma"], "sigma")
    case.close(theirs(losses.noised(clean, noise, sigma)), io["xt"], "xt")
    control, given = rest.pop("control"), rest.pop("given")
    trained, frozen = losses.split(params)
    names = to_theirs(trained, keys.RULES)
    assert set(names) == set(facts["trainable"])
    assert len(to_theirs(frozen, keys.RULES)) == facts["frozen_count"]

    def loss(trained):
        def predict(latents, timestep):
            return model.velocity(config, frozen | trained, latents, timestep, context, control,
                                  given=given, **rest)  # fmt: skip

        return losses.flow_matching(predict, clean, noise, sigma, given)

    (value, found), gradient = quick_jit(jax.value_and_grad(loss, has_aux=True))(trained)
    case.close(theirs(found), io["velocity_pred"], "velocity")
    case.close(value, io["loss"][0], "loss")
    gradient = to_theirs(jax.tree.map(np.asarray, gradient), keys.RULES)
    wanted = {n.removeprefix("grad."): a for n, a in io.items() if n.startswith("grad.")}
    assert wanted
    for name, array in wanted.items():
        case.close(gradient[name], array, name)


CHECKS = {
    "cosmos/rope_tables": check_rope,
    "cosmos/base_block": check_block,
    "cosmos/multiview_blocks": check_multiview,
    "cosmos/network": check_network,
    "cosmos/network_cross_view": functools.partial(
        check_network, kind="cosmos_multiview_crossview"
    ),
    "cosmos/release_checkpoint": check_release,
    "cosmos/train_step": check_train_step,
}
