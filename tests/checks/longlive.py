"""Checks of longlive's golden cases: networks, tables and files."""

import contextlib
import json
import re
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from small_wan import quick_jit

from jaxvid.core import flow, rope
from jaxvid.core.config import build
from jaxvid.wan import dit_files, lora
from jaxvid.wan.dit import Dit, WanConfig
from jaxvid.wan.embeddings import sinusoid

LAST = "b t c h w -> b t h w c"


def latents(array):
    """Channels last."""
    return rearrange(jnp.asarray(array), LAST)


def theirs(array):
    return rearrange(array, "b t h w c -> b t c h w")


@contextlib.contextmanager
def settings_file(case):
    """The case's network as upstream's config.json; heads of tiny networks are not 128 wide."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        settings = dict(case.config["model_config"])
        if "lora" in case.config:
            rank, alpha = (case.config["lora"][name] for name in ("rank", "alpha"))
            settings |= {"r": rank, "lora_alpha": alpha}
        path.write_text(json.dumps(settings))
        yield path


def load(case, *files, names=dit_files.GENERATOR):
    """Network and parameters of the case's files, through the converter."""
    files = files or ("weights.safetensors",)
    with settings_file(case) as settings:
        sources = [case.folder / file for file in files]
        params, info = dit_files.convert([*sources, settings], names)
    return build(WanConfig, info["network"]), params


def velocity(config, params, x, timesteps, text):
    return quick_jit(Dit(config).apply)({"params": params}, latents(x), timesteps, text)[0]


def check_bidirectional(case):
    config, params = load(case)
    io = case.io
    found = velocity(config, params, io["x"], io["timestep"][:, :1], io["prompt_embeds"])
    case.close(theirs(found), io["flow"], "flow")
    sigma = flow.sigma_at(io["timestep"], case.config["timestep_shift"])[..., None, None, None]
    case.close(theirs(flow.clean_of(latents(io["x"]), found, sigma)), io["x0"], "x0")


def check_tables(case):
    io = case.io
    shifts = sorted(
        int(name.removeprefix("sigmas_shift"))
        for name in io
        if re.fullmatch(r"sigmas_shift\d+", name)
    )
    for shift in shifts:
        sigmas = flow.noise_levels(shift)
        case.close(sigmas, io[f"sigmas_shift{shift}"], "sigmas")
        case.close(flow.timesteps_of(sigmas), io[f"timesteps_shift{shift}"], "timesteps")
        weights = flow.loss_weights(shift)
        case.close(weights, io[f"training_weights_shift{shift}"], "weights")
    shift = shifts[0]  # of the generator
    steps = flow.few_steps(io["denoising_step_list"], shift)
    case.close(steps.timesteps, io["warped_denoising_step_list"], "step list")
    index = flow.nearest(io["t"], shift)
    np.testing.assert_array_equal(index, io["timestep_id"])
    case.close(flow.loss_weights(shift)[index], io["training_weight_at_t"], "weight at t")
    sigma = flow.sigma_at(io["t"], shift)[:, None, None, None]
    x, noise, v = io["x"], io["noise"], io["flow"]
    case.close(flow.add_noise(x, noise, sigma), io["add_noise"], "add_noise")
    case.close(flow.clean_of(x, v, sigma), io["x0_from_flow"], "x0_from_flow")
    case.close(flow.velocity_of(x, io["x0_from_flow"], sigma), io["flow_from_x0"], "flow_from_x0")
    check_euler(case)
    check_embeddings(case)


def check_euler(case):
    io = case.io
    found = (re.fullmatch(r"ode(\d+)_sigmas_shift(\d+)", name) for name in io)
    steps, shift = next(tuple(map(int, match.groups())) for match in found if match)
    sigmas = flow.noise_levels(shift, steps)
    case.close(sigmas, io[f"ode{steps}_sigmas_shift{shift}"], "ode sigmas")
    case.close(flow.timesteps_of(sigmas), io[f"ode{steps}_timesteps_shift{shift}"], "timesteps")
    index = np.abs(io["step_t"][:, None] - flow.timesteps_of(sigmas)).argmin(1)
    sigmas = np.append(sigmas, 0)
    now, after = (sigmas[i][:, None, None, None] for i in (index, index + 1))
    case.close(flow.euler_step(io["x"], io["flow"], now, after), io["step_out"], "step")


def check_embeddings(case):
    io = case.io
    case.close(sinusoid(io["sin_t"], io["sin_emb"].shape[-1]), io["sin_emb"], "sinusoid")
    width = io["rope_x"].shape[-1]
    row = [rope.angles(8, pairs)[7] for pairs in rope.axis_pairs(width)]
    wrapped = np.angle(np.exp(1j * np.concatenate(row)))
    case.close(wrapped, io["rope_angle_row7"], "angles")
    notes = case.config["notes"]["rope"]
    start = int(re.search(r"start_frame=(\d+)", notes)[1])
    grid = tuple(map(int, re.search(r"F,H,W = (\d+),(\d+),(\d+)", notes).groups()))
    frames = start + np.arange(grid[0])
    turned = rope.rotate(io["rope_x"], rope.grid_rope(width, frames, *grid[1:]))
    case.close(turned, io["rope_out"], "rope")


def check_lora(case):
    io = case.io
    config, base = load(case)
    merged = load(case, "weights.safetensors", "lora.safetensors")[1]
    with settings_file(case) as settings:
        sources = [case.folder / "weights.safetensors", case.folder / "lora.safetensors", settings]
        adapters, info = dit_files.convert_lora(sources)
    scale = build(lora.LoraConfig, info["lora"]).scale
    unmerged = quick_jit(lora.merge, static_argnums=2)(base, adapters, scale)
    for name, params in (("base", base), ("lora", unmerged), ("merged", merged)):
        found = velocity(config, params, io["x"], io["timestep"], io["prompt_embeds"])
        case.close(theirs(found), io[f"flow_{name}"], name)
        if name == "lora":
            shift = case.config["inference_config"].get("timestep_shift", 5.0)
            sigma = flow.sigma_at(io["timestep"], shift)[..., None, None, None]
            case.close(theirs(flow.clean_of(latents(io["x"]), found, sigma)), io["x0_lora"], "x0")


def check_release(case):
    io = case.io
    for name, files, names in (
        ("flow_generator", ["weights.safetensors"], dit_files.GENERATOR),
        ("flow_generator", ["weights.pt"], dit_files.GENERATOR),
        ("flow_generator_ema", ["weights.pt"], dit_files.EMA),
        ("flow_generator_lora", ["weights.pt", "lora.pt"], dit_files.GENERATOR),
    ):
        config, params = load(case, *files, names=names)
        found = velocity(config, params, io["x"], io["timestep"], io["prompt_embeds"])
        case.close(theirs(found), io[name], f"{name} of {files}")
    exact, half = (load(case, file)[1] for file in ("weights.pt", "weights_model_key.pt"))
    load(case, "weights.pt", names=dit_files.CRITIC)
    for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(half), strict=True):
        np.testing.assert_allclose(a, b.astype(np.float32), rtol=2**-8, atol=1e-30)


CHECKS = {
    "longlive/bidirectional_forward": check_bidirectional,
    "longlive/scheduler_and_tables": check_tables,
    "longlive/lora_forward": check_lora,
    "longlive/release_checkpoint": check_release,
}
