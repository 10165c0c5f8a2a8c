"""Goldens of frame schedules: tables, adaptive choices, optimal observations."""

import itertools

import numpy as np

from jaxvid.fdm import optimal
from jaxvid.fdm.scheme import NoTermination
from jaxvid.fdm.schemes import make_scheme, validate


def index_tables(case):
    for row in case.json("tables.json"):
        settings = [row[k] for k in ("scheme", "T", "num_obs", "max_frames", "step_size")]
        if "error" in row:
            check_error_row(settings, row)
            continue
        assert as_lists(make_scheme(*settings, upstream=True)) == row["steps"], settings
        check_default(settings, row["steps"])


def check_default(settings, upstream):
    """Without the option the table is the same, unless upstream's is not sound."""
    try:
        steps = validate(*settings)
    except ValueError:
        assert not is_sound(settings, upstream), settings
        return
    if is_sound(settings, upstream):
        assert as_lists(steps) == upstream, settings
    assert is_sound(settings, as_lists(steps)), settings


def check_error_row(settings, row):
    """Upstream's option fails like it; the default says so first, or completes the video."""
    wanted, steps = row["steps_before_error"], []
    try:
        for step in make_scheme(*settings, upstream=True):
            steps.append([step.observed, step.latent])
    except Exception as error:
        assert type(error).__name__ == row["error"], (settings, error)
    else:
        raise AssertionError(f"{settings} should raise {row['error']}")
    at_end = row["error"] != NoTermination.__name__
    assert steps[: len(wanted)] == wanted and (len(steps) == len(wanted) or not at_end), settings
    try:
        assert is_sound(settings, as_lists(validate(*settings))), settings
    except ValueError as error:
        assert "\n" not in str(error)


def is_sound(settings, steps):
    """Whether the steps fill a video in calls of at most max_frames, with some room to observe."""
    name, T, n_obs, max_frames, step_size = settings
    whole_calls = name == "really-independent" or "google" == name or name.endswith("for-vis")
    if not steps or n_obs >= T or (step_size >= max_frames and not whole_calls):
        return False
    if name in ("long-range", "mixed-autoreg-independent", "goal-directed-mixed"):
        if max_frames - step_size < 2:
            return False
    if "hierarchy" in name and step_size < 2:
        return False
    goal = {"goal-directed-mixed": 1}.get(name, 5 if name.startswith("goal") else 0)
    seen = {*range(n_obs), *range(T - goal, T)}
    for observed, latent in steps:
        small = len(observed) + len(latent) <= max_frames
        if not (small and set(observed) <= seen and len(set(latent)) == len(latent) > 0):
            return False
        seen |= set(latent)
    return seen == set(range(T))


def as_lists(steps):
    return [[step.observed, step.latent] for step in steps]


def adaptive_indices(case):
    for row in case.json("tables.json"):
        settings = [row[k] for k in ("scheme", "T", "num_obs", "max_frames", "step_size")]
        embedded = case.io[row["embeddings"].split()[0]]
        wanted = row.get("steps", row.get("steps_before_error"))
        assert adaptive_table(settings, embedded, True, len(wanted)) == wanted, settings
        if "error" in row:
            continue
        try:
            table = adaptive_table(settings, embedded, False)
        except ValueError:
            assert not is_sound_for_first(settings, wanted), settings
            continue
        assert table == wanted or not is_sound_for_first(settings, wanted), settings


def adaptive_table(settings, embedded, upstream, count=None):
    """The first `count` steps with indices for each video, as the golden writes them."""
    embed = embedded if upstream else lambda frames: embedded[:, frames]
    steps = make_scheme(*settings, embed=embed, upstream=upstream)
    batch = len(embedded)
    return [[s.rows(batch), [s.latent] * batch] for s in itertools.islice(steps, count)]


def is_sound_for_first(settings, steps):
    return is_sound(settings, [[observed[0], latent[0]] for observed, latent in steps])


def optimal_schedule(case):
    tables = case.json("tables.json")
    for row in tables["force_nearby"]:
        found = optimal.nearest_done(row["latent"], row["done"]) | set(row["observed_before"])
        assert sorted(found) == row["observed_after"]
    for row in tables["timestep_grids"]:
        assert optimal.timestep_grid(row["num_timesteps"], row["grid"]).tolist() == row["t_seq"]
    for row in tables["video_subsets"]:
        sizes = row["step"], row["n_observed"], row["dataset"], row["size"]
        np.testing.assert_array_equal(optimal.video_subset(*sizes), row["indices"])


CHECKS = {
    "fdm/index_tables": index_tables,
    "fdm/adaptive_indices": adaptive_indices,
    "fdm/optimal_schedule": optimal_schedule,
}
