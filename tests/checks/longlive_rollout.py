"""Checks of longlive's golden rollouts: cache, prompt switches, conditioning on a video."""

import jax
import jax.numpy as jnp
import numpy as np

from checks.longlive import latents, load, theirs
from jaxvid.core import flow
from jaxvid.longlive import rollout
from jaxvid.longlive.cache import CausalWan, Window


def settings(case) -> rollout.RolloutConfig:
    """Our settings for upstream's, with the faults that upstream has."""
    theirs = case.config["inference_config"]
    kind = case.config.get("flow")
    return rollout.RolloutConfig(
        block=theirs["num_frame_per_block"],
        window=theirs["local_attn_size"],
        sink=theirs["sink_size"],
        relative_rope=theirs["use_infinite_attention"],
        steps=tuple(theirs["denoising_step_list"]),
        warp_steps=theirs["warp_denoising_step"],
        shift=theirs["timestep_shift"],
        context_timestep=theirs["context_noise"],
        global_sink=theirs["global_sink"],
        conditioning={"vc": "single", "vcb": "blocks"}.get(kind, "auto"),
        zero_sink=kind == "switch" and not theirs["global_sink"],
        noisy_sink=True,
        blank_tail=True,
    )


def in_order(cache, window: Window, end: int):
    """Slots as upstream lays them out: sink, then by time."""
    first = max(end - window.frames, 0)
    frames = np.arange(window.frames)
    frames = np.where(frames < window.sink, frames, frames + first)
    slots = np.asarray(window.slots(frames))
    return [np.asarray(a).reshape(*a.shape[:2], window.frames, -1, *a.shape[3:])[:, :, slots]
            for a in cache]  # fmt: skip


def check_cache(case, prefix, cache, window, end):
    for name, array in zip("kv", in_order(cache, window, end), strict=True):
        for layer, found in enumerate(array):
            key = f"{prefix}_cache_{name}_{layer}"
            if key in case.io:
                wanted = case.io[key]
                case.close(found.reshape(wanted.shape), wanted, key)


def check_steps(case):
    io, config = case.io, settings(case)
    wan, params = load(case)
    calls = case.config["calls"]
    window = config.cache_window(max(call["global_end_frames"] for call in calls))
    network = CausalWan(wan, window)
    text = network.text_keys(params, io["prompt_embeds"])
    batch = io["prompt_embeds"].shape[0]
    cache = network.empty_cache(batch, *case.config["inference_config"]["latent_hw"])
    forward = jax.jit(network.forward, static_argnames="skip")
    end = 0
    for call in calls:
        name, start = f"call{call['call']}", call["current_start_frame"]
        x, timestep = latents(io[f"{name}_x"]), io[f"{name}_timestep"]
        again = start + x.shape[1] <= end
        skip = rollout.protected_frames(config, start, x.shape[1]) if again else 0
        end = max(end, start + x.shape[1])
        assert end == call["global_end_frames"]
        assert min(end, window.frames) == call["local_end_frames"]
        frames = start + jnp.arange(x.shape[1])
        velocity, cache = forward(params, x, timestep, text, cache, frames, end, skip=skip)
        case.close(theirs(velocity), io[f"{name}_flow"], f"{name}_flow")
        sigma = flow.sigma_at(timestep, config.shift)[..., None, None, None]
        case.close(theirs(flow.clean_of(x, velocity, sigma)), io[f"{name}_x0"], f"{name}_x0")
        assert call["cache_snapshot"] == (f"{name}_cache_k_0" in io)
        check_cache(case, name, cache, window, end)


def run_rollout(case, dtype=jnp.float32):
    """Text-to-video, prompt switches and video-conditional generation alike.

    Returns all latents (b, t, h, w, c), the last state and the network.
    """
    io, config = case.io, settings(case)
    wan, params = load(case)
    params = jax.tree.map(lambda a: jnp.asarray(a, dtype), params)
    frames = case.config["num_output_frames"]
    network = CausalWan(wan, config.cache_window(frames), dtype)
    given = latents(io["conditioning_latents"]) if "conditioning_latents" in io else None
    first = 0 if given is None else given.shape[1]
    draws = np.concatenate([blocks_of(io["noise"], config.block, len(io["renoise"])),
                            io["renoise"]], axis=1)  # fmt: skip
    draws = np.moveaxis(draws, -3, -1)
    prompts = sum(name.startswith("prompt_embeds_") for name in io)
    texts = [io[f"prompt_embeds_{i}"] for i in range(prompts)]
    shape = (given if given is not None else latents(io["noise"]))[:, 0].shape
    state = rollout.begin(network, params, texts[0], shape)
    text_at, out = None, []
    if given is not None:
        state = rollout.condition(network, config, params, state, given)
        state = rollout.set_text(network, params, state, texts[1])
        out.append(given)
    elif len(texts) > 1:
        text_at = rollout.scheduled(texts[1:], case.config["switch_frame_indices"])
    noise = lambda frame: jnp.asarray(draws[(frame - first) // config.block])  # noqa: E731
    for block in rollout.generate(network, config, params, state, noise, frames, text_at):
        out.append(np.asarray(block.latents))
        state = block.state
    return np.concatenate(out, axis=1), state, network


def check_rollout(case):
    io = case.io
    found, state, network = run_rollout(case)
    case.close(theirs(found), io["out_latents"], "out_latents")
    end = int(state.frame)
    tokens = case.config["inference_config"]["frame_seq_length"]
    assert end * tokens == io["final_global_end"].item()
    assert min(end, network.window.frames) * tokens == io["final_local_end"].item()
    check_cache(case, "final", state.cache, network.window, end)


def blocks_of(noise, block: int, count: int):
    """(b, t, ...) to (count, 1, b, block, ...)."""
    parts = [noise[:, i * block : (i + 1) * block] for i in range(count)]
    return np.stack(parts)[:, None]


CHECKS = {
    "longlive/cache_steps": check_steps,
    "longlive/rollout": check_rollout,
    "longlive/interactive": check_rollout,
    "longlive/switch": check_rollout,
    "longlive/video_conditional": check_rollout,
}
