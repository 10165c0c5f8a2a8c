"""Checks of longlive's golden training cases: losses and their gradients."""

import functools
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file
from small_wan import quick_jit

from checks.longlive import latents, load, theirs
from jaxvid.core import flow
from jaxvid.core.config import build
from jaxvid.core.convert import to_theirs
from jaxvid.longlive import distillation, losses, rollout, self_forcing, stream
from jaxvid.longlive.cache import CausalWan
from jaxvid.longlive.forcing import diffusion_forcing, teacher_forcing
from jaxvid.longlive.recipe import Recipe
from jaxvid.longlive.stream import Chunk, Position
from jaxvid.longlive.train_config import TrainConfig
from jaxvid.wan import dit_files
from jaxvid.wan.dit import Dit, WanConfig
from jaxvid.wan.dit_keys import ORIGINAL


def check_gradients(case, gradient, prefix):
    found = to_theirs(jax.tree.map(np.asarray, gradient), ORIGINAL)
    wanted = case.group(prefix)
    assert wanted, prefix
    for name, array in wanted.items():
        np.testing.assert_allclose(
            found[name.removeprefix("model.")],
            array,
            rtol=case.config["rtol"],
            atol=case.config["atol_grad"],
            err_msg=f"{prefix}/{name}",
        )


def check_flow_matching(case):
    io, train = case.io, case.config["train_config"]
    config, params = load(case)
    block, shift = train["num_frame_per_block"], train["timestep_shift"]
    table = flow.timesteps_of(flow.noise_levels(shift))
    clean, noise, text = latents(io["clean_latent"]), latents(io["noise"]), io["prompt_embeds"]

    def noised(index):
        times = table[index]
        return times, flow.add_noise(clean, noise, losses.per_frame(flow.sigma_at(times, shift)))

    times, x = noised(io["timestep_index"])
    weights = flow.loss_weights(shift)[io["timestep_index"]]
    aug_times, augmented = noised(io["aug_timestep_index"])
    for found, name in (
        (times, "timestep"),
        (theirs(x), "noisy_latent"),
        (weights, "loss_weight_per_frame"),
        (aug_times, "aug_timestep"),
        (theirs(augmented), "aug_clean_latent"),
    ):
        case.close(found, io[name], name)

    def teacher(params, clean, clean_times):
        return teacher_forcing(config, params, clean, clean_times, x, times, text, block)

    def forced(params, window=-1):
        return diffusion_forcing(config, params, x, times, text, block, window)

    window = train["local_window_df_local"]
    for mode, velocity in {
        "tf": lambda p: teacher(p, clean, jnp.zeros_like(times)),
        "tf_aug": lambda p: teacher(p, augmented, aug_times),
        "df": forced,
        "df_local": lambda p: forced(p, window),
    }.items():

        def loss(params, velocity=velocity):
            found = velocity(params)
            return losses.flow_matching(found, clean, noise, weights), found

        (value, found), gradient = quick_jit(jax.value_and_grad(loss, has_aux=True))(params)
        case.close(theirs(found), io[f"{mode}_flow"], mode)
        case.close(value, io[f"{mode}_loss"], mode)
        check_gradients(case, gradient, f"{mode}_grad")
    check_ode(case, config, params)


def check_ode(case, config, params):
    io, train = case.io, case.config["train_config"]
    block, shift = train["num_frame_per_block"], train["timestep_shift"]
    steps = flow.few_steps(train["ode_denoising_step_list"], shift, train["warp_denoising_step"])
    path = io["ode_latents"]
    index = io["ode_index"]
    x = np.take_along_axis(path, index[:, None, :, None, None, None], axis=1)[:, 0]
    case.close(x, io["ode_input"], "ode_input")
    times = jnp.asarray(steps.timesteps)[index]
    case.close(times, io["ode_timestep"], "ode_timestep")
    x, clean = latents(x), latents(path[:, -1])

    def loss(params):
        velocity = diffusion_forcing(config, params, x, times, io["prompt_embeds"], block)
        return losses.ode_regression(velocity, x, clean, times, shift)

    (value, found), gradient = quick_jit(jax.value_and_grad(loss, has_aux=True))(params)
    case.close(theirs(found), io["ode_pred_x0"], "ode_pred_x0")
    case.close(value, io["ode_loss"], "ode_loss")
    check_gradients(case, gradient, "ode_grad")


def load_three(case) -> dict:
    """Network and parameters of generator, teacher and critic, from one file of all tensors."""
    networks = {}
    for name, config in case.config["model_config"].items():
        with tempfile.TemporaryDirectory() as folder:
            weights, settings = Path(folder) / "weights.safetensors", Path(folder) / "config.json"
            prefix = f"{name}/"
            save_file(
                {key.removeprefix(prefix): np.ascontiguousarray(array)
                 for key, array in case.weights().items() if key.startswith(prefix)},
                weights,
            )  # fmt: skip
            settings.write_text(json.dumps(config))
            params, info = dit_files.convert([weights, settings])
            networks[name] = build(WanConfig, info["network"]), jax.tree.map(np.array, params)
    return networks


def score(network, params, text):
    """Velocity of a bidirectional network; one timestep for all frames."""
    return lambda x, times: Dit(network).apply({"params": params}, x, times[:, :1], text)[0]


def generator_of(case, wan):
    train = case.config["train_config"]
    config = rollout.RolloutConfig(
        block=train["num_frame_per_block"],
        window=train["local_attn_size"],
        sink=train["sink_size"],
        steps=tuple(train.get("denoising_step_list", (1000, 750, 500, 250))),
        warp_steps=train.get("warp_denoising_step", True),
        shift=train.get("timestep_shift", 5.0),
        context_timestep=train.get("context_noise", 0),
        global_sink=False,
        zero_sink=True,
    )
    return CausalWan(wan, config.cache_window(100)), config


def dmd_of(case):
    train = case.config["train_config"]
    return losses.DmdConfig(
        guidance=train.get("guidance_scale", 3.0),
        shift=train.get("timestep_shift", 5.0),
        score_shift=train.get("score_wrapper_timestep_shift", 8.0),
    )


def draws(noise, renoise, block: int):
    """(blocks, e + 1, b, t, h, w, c) from upstream's two arrays."""
    first = np.stack(np.split(noise, noise.shape[1] // block, axis=1))[:, None]
    every = first if renoise is None else np.concatenate([first, renoise], axis=1)
    return jnp.moveaxis(jnp.asarray(every), -3, -1)


def check_dmd(case):
    io, train = case.io, case.config["train_config"]
    networks = load_three(case)
    wan, params = networks["generator"]
    network, config = generator_of(case, wan)
    dmd, exit_step = dmd_of(case), train["exit_step"]
    cond, uncond = io["prompt_embeds_cond"], io["prompt_embeds_uncond"]
    shape = latents(io["noise"])[:, 0].shape
    text_learns = train["gradient_checkpointing"] or exit_step == 0

    def video(params, prefix="", leaky=False):
        text = cond if text_learns else jax.lax.stop_gradient(network.text_keys(params, cond))
        noise = draws(io["noise"], io.get(f"{prefix}renoise"), config.block)
        context = jnp.moveaxis(jnp.asarray(io[f"{prefix}context_noise"]), -3, -1)
        state = rollout.begin(network, params, cond, shape)
        return self_forcing.train_chunk(
            network, config, params, state, text, noise, context, exit_step, leaky
        )[1]

    times = dmd.timestep(jnp.full(io["dmd_timestep"].shape, train["dmd_timestep_int"]))
    case.close(times, io["dmd_timestep"], "dmd_timestep")
    noise = latents(io["dmd_noise"])
    scores = (
        score(*networks["fake_score"], cond),
        score(*networks["real_score"], cond),
        score(*networks["real_score"], uncond),
    )

    def loss(params, leaky):
        clip = video(params, leaky=leaky)
        direction = losses.dmd_direction(dmd, *scores, clip, noise, times)
        return losses.dmd_loss(clip, direction), (clip, direction)

    for name, leaky in (("detached", False), ("leaky", True)):
        run = quick_jit(jax.value_and_grad(loss, has_aux=True), static_argnums=1)
        (value, (clip, direction)), gradient = run(params, leaky)
        case.close(theirs(clip), io["pred_video"], "pred_video")
        case.close(theirs(losses.noised(dmd, clip, noise, times)), io["noisy_latent"], "noisy")
        case.close(theirs(direction), io["kl_grad"], "kl_grad")
        case.close(value, io["dmd_loss"], "dmd_loss")
        check_gradients(case, gradient, f"gen_grad_{name}")
    clip = quick_jit(functools.partial(video, prefix="critic_"))(params)
    check_critic(case, dmd, networks["fake_score"], clip, cond)


def check_critic(case, dmd, critic, clip, text):
    io, train = case.io, case.config["train_config"]
    config, params = critic
    times = dmd.timestep(jnp.full(io["critic_timestep"].shape, train["critic_timestep_int"]))
    case.close(times, io["critic_timestep"], "critic_timestep")

    def loss(params):
        velocity = score(config, params, text)
        return losses.critic_loss(dmd, velocity, clip, latents(io["critic_noise"]), times)

    value, gradient = quick_jit(jax.value_and_grad(loss))(params)
    case.close(value, io["critic_loss"], "critic_loss")
    check_gradients(case, gradient, "critic_grad")


def streaming_of(case, wan) -> Recipe:
    """What the training program is compiled for."""
    io, train = case.io, case.config["train_config"]
    config = TrainConfig(
        "streaming",
        frames=train["chunk"],
        new_frames=train["min_new"],
        max_frames=max(train["max_length"], train["chunk"]),
        gradient_frames=train["chunk"],
        switch_frames=(train["switch_frame"],),
        image_first=False,
    )
    shape = latents(io["chunk0_noise"]).shape[2:]
    rollout_config = generator_of(case, wan)[1]
    return Recipe(config, rollout_config, wan, wan, wan, "float32", shape)


def chunk_of(recipe: Recipe, facts) -> Chunk:
    """A chunk as the schedule has it, whatever came before."""
    position = Position(0, facts["start"]) if facts["start"] else Position()
    chunk = stream.next_chunk(recipe.train, recipe.rollout.block, position)
    assert (chunk.start, chunk.frames) == (facts["start"], facts["new"])
    return chunk


def check_streaming(case):
    io, train = case.io, case.config["train_config"]
    networks = load_three(case)
    wan, params = networks["generator"]
    recipe, dmd = streaming_of(case, wan), dmd_of(case)
    texts = tuple(io[f"prompt_embeds_{name}"] for name in ("first", "second"))
    now = distillation.begin(recipe, len(texts[0]))

    def clip_of(params, start, i, kind):
        noise = draws(io[f"chunk{i}_noise"], io.get(f"chunk{i}_renoise"), recipe.rollout.block)
        context = jnp.moveaxis(jnp.asarray(io[f"chunk{i}_context_noise"]), -3, -1)
        after, new = distillation.make_blocks(
            recipe, params, start, kind, texts, noise, context, train["exit_step"]
        )
        known = start.recent[:, -train["chunk"] :]
        return after, *self_forcing.loss_clip(known, new, train["chunk"])

    run = quick_jit(clip_of, static_argnums=(2, 3))
    for i, facts in enumerate(case.config["chunks"]):
        assert int(now.frame) == facts["start"]
        before, kind = now, recipe.kind(chunk_of(recipe, facts))
        now, clip, mask = run(params, before, i, kind)
        case.close(theirs(clip), io[f"chunk{i}_loss_chunk"], f"chunk {i}")
        np.testing.assert_array_equal(mask, io[f"chunk{i}_gradient_mask"])
    times = dmd.timestep(jnp.full(clip.shape[:2], train["dmd_timestep_int"]))
    teacher, text = networks["real_score"], texts[kind.prompt]
    scores = (
        score(*networks["fake_score"], text),
        score(*teacher, text),
        score(*teacher, io["prompt_embeds_uncond"]),
    )

    def loss(params):
        _, clip, mask = clip_of(params, before, i, kind)
        noise = latents(io["dmd_noise"])
        return losses.dmd_loss(clip, losses.dmd_direction(dmd, *scores, clip, noise, times), mask)

    value, gradient = quick_jit(jax.value_and_grad(loss))(params)
    case.close(value, io["dmd_loss"], "dmd_loss")
    check_gradients(case, gradient, "gen_grad_detached")


CHECKS = {
    "longlive/train_flow_matching": check_flow_matching,
    "longlive/train_dmd_self_forcing": check_dmd,
    "longlive/train_streaming_switch": check_streaming,
}
