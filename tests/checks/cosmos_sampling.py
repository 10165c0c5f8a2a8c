"""Checks of cosmos's goldens of sampling: schedules, solver, noise, texts, chunks, grids."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from checks import cosmos_network as nets
from jaxvid.core import solvers
from jaxvid.cosmos import chunks, conditions, noise, outputs, sample, schedule


def check_scheduler(case):
    io = case.io
    for name, settings in case.config["config"]["cases"].items():
        make = schedule.karras if settings.get("use_kerras_sigma") else schedule.shifted
        shift = (settings["shift"],) if "shift" in settings else ()
        levels = make(settings["num_steps"], *shift)
        np.testing.assert_array_equal(levels.timesteps, io[f"{name}.timesteps"], name)
        np.testing.assert_allclose(levels.sigmas, io[f"{name}.sigmas"], rtol=1e-6, err_msg=name)
        target = io[f"{name}.target"]
        rows = solvers.unipc(levels.sigmas)

        def step(state, row, target=target):
            sigma = jnp.maximum(row.sigma, 1e-3)
            velocity = (state.x - target) / sigma * 0.9 + 0.1 * jnp.sin(3 * state.x)
            state = solvers.step(state, velocity, row)
            return state, state.x

        _, found = jax.lax.scan(step, solvers.begin(jnp.asarray(io[f"{name}.x_init"])), rows)
        case.close(found, io[f"{name}.trajectory"], name)


def run_sampler(case, io, texts, facts, noises):
    """Samples as the case says, and yields the velocities (two and guided) and the next latents.

    Args:
      io: x0, control_latent, condition_mask, view_indices of the run.
      texts: positive and negative, (1, (v m), c).
      facts: the settings of the run.
    """
    config, params = nets.load(case)
    views = facts["n_views"]
    ours = functools.partial(nets.by_view, views=views)
    words = [rearrange(jnp.asarray(t), "b (v m) c -> b v m c", v=views) for t in texts]
    mask = ours(io["condition_mask"])[..., 0, 0, 0]
    ids = jnp.asarray(io["view_indices"][0].reshape(views, -1)[:, 0])
    np.testing.assert_array_equal(ids, facts["view_ids"])
    counts = facts["conditional_latent_frames"]
    counts = counts if isinstance(counts, list) else [counts] * views
    np.testing.assert_array_equal(mask[0], conditions.given_mask(counts, mask.shape[2]))
    rest = {"control": ours(io["control_latent"]), "given": mask, "view_ids": ids, "padding": None}

    def network(x, timestep, guided):
        scale = case.config["config"].get("control_weight", 1.0)
        call = functools.partial(nets.velocity, config, params, x, timestep[None], scale, **rest)
        return call(text=words[0]), call(text=words[1]) if guided else None

    guidance = case.config["config"]["guidance"]
    plan = sample.plan_steps(
        sample.SamplerConfig(shift=case.config["config"]["shift"]),
        case.config["config"]["num_steps"],
        guidance,
    )
    given = sample.Given(ours(io["x0"]), mask)
    state = solvers.begin(ours(noises))
    for step in plan:
        timestep = jnp.asarray(step.timestep)
        pair = sample.velocities(network, state.x, timestep, given, ours(noises), True)
        guided = sample.velocity(
            network, guidance, "guided", state.x, timestep, given, ours(noises)
        )
        state = solvers.step(state, guided, step.row)
        yield *pair, guided, state


def check_sampler(case):
    io, facts = case.io, case.config["config"]
    views = facts["n_views"]
    x0 = nets.by_view(io["x0"], views)
    drawn = noise.of_upstream(facts["numpy_seed"], 1, views, x0.shape[2:])
    np.testing.assert_array_equal(nets.theirs(drawn), io["noise"])
    levels = schedule.shifted(facts["num_steps"], facts["shift"])
    np.testing.assert_array_equal(levels.timesteps, io["timesteps"])
    np.testing.assert_allclose(levels.sigmas, io["sigmas"], rtol=1e-6)
    texts = (io["text"], io["neg_text"])
    names = ("cond_velocity", "uncond_velocity", "velocity", "x0_pred", "latents")
    for i, found in enumerate(run_sampler(case, io, texts, facts, io["noise"])):
        *three, state = found
        for name, array in zip(names, (*three, state.clean[0], state.x), strict=True):
            case.close(nets.theirs(array), io[name][i], f"{name} {i}")
    case.close(nets.theirs(state.x), io["out"], "out")


def check_ranks(case):
    io, config = case.io, case.config["config"]
    texts = (io["text"], np.zeros_like(io["text"]))
    for name, facts in config["cases"].items():
        arrays = {n.removeprefix(f"{name}."): a for n, a in io.items()}
        shape = (facts["frames_per_view"], *facts["latent_hw"], arrays["x0"].shape[1])
        draw = functools.partial(noise.of_upstream, facts["numpy_seed"], shape=shape)
        for ranks in facts["cp_sizes"]:
            drawn = nets.theirs(draw(ranks, facts["n_views"]))
            wanted = "noise_drawn" if ranks == 1 else f"noise_effective_cp{ranks}"
            np.testing.assert_array_equal(drawn, arrays[wanted], f"{name} {ranks}")
            *_, last = run_sampler(case, arrays, texts, facts, drawn)
            case.close(nets.theirs(last[-1].x), arrays[f"out_cp{ranks}"], f"{name} {ranks}")


def check_loop(case):
    """The stub generator of the case: a mixture of video, control and seed."""
    io, config = case.io, case.config["config"]
    views, overlap = config["n_views"], config["chunk_overlap"]
    frames, total = config["chunk_size"], config["frames_per_view"]
    ours = lambda a: rearrange(a, "1 c (v t) h w -> v t h w c", v=views)  # noqa: E731
    video, control = ours(io["video"]), ours(io["control"])
    given = config["num_conditional_pixel_frames"]
    counts = given if isinstance(given, list) else [given] * views
    layout = chunks.Layout(frames, overlap, chunks.chunks_within(total, frames, overlap))
    assert layout.total == total and layout.chunks == len(config["per_chunk"])
    made = []  # frames as the stub makes them, before they are truncated

    def make(window):
        part = slice(window.start, window.start + frames)
        seen = np.concatenate([window.past, video[:, part][:, window.past.shape[1] :]], axis=1)
        wanted = config["per_chunk"][window.chunk]
        seed = config["seed"] + window.chunk
        assert seed == wanted["seed"]
        pixels = [overlap] * views if window.chunk else counts
        latent = [conditions.latent_count(n) for n in pixels]
        np.testing.assert_array_equal(latent, wanted["num_conditional_latent_frames"])
        name = f"chunk{window.chunk}"
        np.testing.assert_array_equal(seen, ours(io[f"{name}.video"]), name)
        np.testing.assert_array_equal(control[:, part], ours(io[f"{name}.control"]), name)
        mixed = 0.6 * seen / np.float32(255) + 0.3 * control[:, part] / np.float32(255)
        yield from ()
        chunk = np.clip(mixed + 0.01 * (seed % 7), 0, 1).astype(np.float32)
        made.append(chunk[:, layout.new(window.chunk) :])
        return np.asarray(outputs.truncated(chunk))

    pieces = list(chunks.autoregress(make, layout, video[:, : max(counts)]))
    found = np.concatenate(made, axis=1)
    levels = np.concatenate([piece.frames for piece in pieces], axis=1)
    np.testing.assert_array_equal(levels, (found * np.float32(255)).astype(np.uint8))
    theirs = lambda a: rearrange(a, "v t h w c -> c (v t) h w")  # noqa: E731
    case.close(theirs(found), io["out_video"])
    case.close(theirs(control[:, : layout.total] / np.float32(255)), io["out_control"])


def check_conditions(case):
    io, config = case.io, case.config["config"]
    views, front = config["n_views"], config["front_camera_position"]
    prompt, empty, negative = (io[f"{n}_emb"][0] for n in ("prompt", "empty", "negative"))
    assert config["empty_string"] == conditions.EMPTY
    flat = lambda a: rearrange(a, "v n c -> 1 (v n) c")  # noqa: E731
    case.close(flat(conditions.assemble(prompt, empty, front, views)), io["single_pos"])
    case.close(flat(conditions.assemble(negative, empty, front, views)), io["single_neg"])
    positive, negatives = conditions.per_view(io["multi_view_embs"], negative)
    case.close(flat(positive), io["multi_pos"])
    case.close(flat(negatives), io["multi_neg"])
    frames = config["state_t"]
    for request, wanted in zip(config["mask_requests"], io["condition_masks"], strict=True):
        counts = request if isinstance(request, list) else [request] * views
        case.close(conditions.given_mask(counts, frames).ravel(), wanted, str(request))
    found = [conditions.latent_count(int(n)) for n in io["pixel_counts"]]
    np.testing.assert_array_equal(found, io["latent_counts"])


def check_layout(case):
    io, frames = case.io, case.config["config"]["frames_per_view"]
    ours = lambda a: rearrange(a, "c (v t) h w -> v t h w c", t=frames)  # noqa: E731
    theirs = lambda a: rearrange(a, "t h w c -> c t h w")  # noqa: E731
    video, control = ours(io["video"]), ours(io["control"])
    for name, wanted in io.items():
        if name in ("video", "control"):
            continue
        if name == "grid_3x3":
            found = outputs.square_grid(video)
        else:
            count = int(name.rpartition("_")[2])
            views = range(count)
            found = outputs.around_grid(video[:count], views)
            if "control" in name:
                found = outputs.with_controls(video[:count], control[:count], views)
        case.close(theirs(found), wanted, name)


CHECKS = {
    "cosmos/scheduler_tables": check_scheduler,
    "cosmos/sampler": check_sampler,
    "cosmos/sampler_context_parallel": check_ranks,
    "cosmos/autoregressive_loop": check_loop,
    "cosmos/text_and_condition_batch": check_conditions,
    "cosmos/output_layout": check_layout,
}
