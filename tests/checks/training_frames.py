"""Goldens of what surrounds FDM's network: training frames, timesteps, names, pixels, maps."""

import numpy as np
import pytest

from jaxvid.fdm import frames, marking, naming, timesteps
from jaxvid.metrics import carla


class Tape:
    """Draws replayed from a recorded list of (code, value)."""

    def __init__(self, events, padding=()):
        self.events, self.pad = list(events), padding

    def _next(self, code):
        kind, value = self.events.pop(0)
        assert kind == code
        return value

    def integer(self, low, high):
        value = self._next("s")
        assert low <= value < high
        return value

    def scale(self):
        return self._next("n")

    def uniform(self):
        return self._next("u")

    def padding(self, n, size):
        assert len(self.pad) == size
        return np.array(self.pad, np.int64)


def mask_sampling(case):
    draws = case.json("draws.json")
    for group in draws["groups"]:
        events = [
            event
            for d in group["draws"]
            for event in (("s", d["s"]), ("n", d["u_scale"]), ("u", d["u_pos"]))
        ]
        tape = Tape(events)
        assert frames.draw_group(tape, group["max_indices"], group["T"]) == group["indices"]
        assert not tape.events
    for row in draws["rows"]:
        tape = Tape(row["events"])
        roles = frames.draw_roles(tape, row["T"], row["max_frames"])
        assert np.flatnonzero(roles.observed).tolist() == row["obs"]
        assert np.flatnonzero(roles.latent).tolist() == row["latent"]
        assert not tape.events and not roles.marginal.any()
    for row in draws["statistics"]:
        check_statistics(row)
    check_batch(case, draws["pad_indices"])


def check_statistics(wanted, count=20_000):
    """Means within 4 standard errors of the recorded rows, in a sample of our own."""
    T, most = wanted["T"], wanted["max_frames"]
    rows = [frames.draw_roles(frames.RandomDraws(7, 0, i), T, most) for i in range(count)]
    obs = np.array([row.observed.sum() for row in rows])
    total = np.array([row.count for row in rows])
    places = [np.flatnonzero(row.observed | row.latent) for row in rows]
    first = np.array([p[0] for p in places])
    ours = {
        "mean_obs": obs, "mean_latent": total - obs, "mean_total": total, "mean_first": first,
        "mean_span": np.array([p[-1] for p in places]) - first, "p_no_obs": obs == 0,
        "p_full": total == most, "p_single_frame": total == 1,
    }  # fmt: skip
    for name, values in ours.items():
        error = values.std() / np.sqrt(wanted["rows"])
        assert abs(values.mean() - wanted[name]) < 4 * error, (name, values.mean(), wanted[name])
    shares = np.bincount(total, minlength=most + 1) / count
    errors = np.sqrt(shares * (1 - shares) / wanted["rows"])
    far = np.abs(shares - wanted["total_hist"]) > 5 * errors + 1e-6
    assert not far.any(), np.flatnonzero(far)


def check_batch(case, padding):
    io = case.io
    masks = [io[f"{name}_mask_full"].squeeze((2, 3, 4)) > 0 for name in ("obs", "latent")]
    roles = [frames.Roles(o, x, np.zeros_like(o)) for o, x in zip(*masks, strict=True)]
    for folder, random in (("out", True), ("nopad", False)):
        wanted = case.group(folder)
        sets = frames.assemble(
            [Tape([], pad) for pad in padding], roles, wanted["frame_indices"].shape[1],
            random_padding=random, upstream_masks=True,
        )  # fmt: skip
        np.testing.assert_array_equal(sets.frame_indices, wanted["frame_indices"])
        case.close(sets.obs_mask, wanted["obs_mask"].squeeze((2, 3, 4)))
        case.close(sets.latent_mask, wanted["latent_mask"].squeeze((2, 3, 4)))
        case.close(frames.gather(io["batch1"], io["batch2"], sets), wanted["batch"])


def loss_aware_sampler(case):
    trace = case.json("trace.json")
    history = timesteps.empty_history(trace["num_timesteps"], trace["history_per_term"])
    uniform = trace["uniform_prob"]
    case.close(timesteps.loss_weights(history, uniform), trace["initial_weights"])
    for update in trace["updates"]:
        history = timesteps.add_losses(history, update["t"], update["loss"])
        assert timesteps.is_warm(history) == update["warmed_up"]
        case.close(timesteps.loss_weights(history, uniform), update["weights"])
    weights = timesteps.loss_weights(history, uniform)
    case.close(timesteps.probabilities(weights), trace["final_probabilities"])
    case.close(timesteps.importance(weights), trace["importance_weights"])


def naming_and_pixels(case):
    steps = case.config["latest_checkpoint_steps"]
    for row in case.config["rows"]:
        if "error" in row:
            with pytest.raises(ValueError, match="checkpoint"):
                folder_of(row["args"], steps)
        else:
            assert folder_of(row["args"], steps) == row["eval_dir"]
    check_pixels(case)
    check_marks(case)


def folder_of(args, steps):
    """The golden's evaluation folder, by upstream's argument names."""
    optional = {k: args[k] for k in ("use_gradient_method", "override_dataset") if k in args}
    if "use_gradient_method" in optional:
        optional["gradient_method"] = optional.pop("use_gradient_method")
    name = naming.run_name(
        args["inference_mode"], args["max_frames"], args["step_size"], args["T"],
        args["obs_length"], optimality=args["optimality"],
        partition=args["dataset_partition"], upstream_names=True, **optional,
    )  # fmt: skip
    folder = naming.evaluation_folder(
        args["checkpoint_path"], name, args["eval_dir"], ddim=args["use_ddim"],
        respacing=args["timestep_respacing"], step=steps.get(args["checkpoint_path"]),
    )  # fmt: skip
    return str(folder)


def check_pixels(case):
    io = case.io
    for name in (key.removeprefix("normalised_") for key in io if key.startswith("normalised_")):
        values = marking.normalise(io["pixel"])
        case.close(values, io[f"normalised_{name}"], name)
        case.close(marking.quantise(values, truncate=True), io[f"saved_{name}"], name)
        np.testing.assert_array_equal(marking.quantise(values), io["pixel"])
    truth = (marking.normalise(io["pixel"]) + 1) / 2
    case.close(marking.fvd_pixels(truth), io["fvd_input_from_gt"])
    case.close(marking.fvd_pixels(io["pixel"] / 255.0), io["fvd_input_from_saved"])


def check_marks(case):
    """Frame 0 of a grey pair is marked, frame 1 is not."""
    wanted = case.io["mark_as_observed"].transpose(0, 2, 3, 1)
    plain = np.full_like(wanted, wanted[1, 0, 0, 0])
    case.close(np.stack([marking.mark_observed(plain[0]), plain[1]]), wanted)
    end = case.io["end_of_video_frame"].transpose(0, 2, 3, 1)
    case.close(marking.end_frame(np.repeat(end, 2, axis=0)), end)


def carla_cells(case):
    table = case.json("table.json")
    wanted = [cell[0] if cell else -1 for cell in table["cells"]]
    np.testing.assert_array_equal(carla.cells(table["points"]), wanted)


CHECKS = {
    "fdm/mask_sampling": mask_sampling,
    "fdm/loss_aware_sampler": loss_aware_sampler,
    "fdm/naming_and_pixels": naming_and_pixels,
    "fdm/carla_cells": carla_cells,
}
