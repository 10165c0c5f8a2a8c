"""Solvers, guidance, noise and chunks of the multiview mode, with functions for networks."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.core import solvers
from jaxvid.cosmos import chunks, conditions, noise, outputs, programs, sample, schedule

SHAPE = (1, 2, 3, 2, 2, 4)  # b v t h w c
TARGET = jax.random.normal(jax.random.key(7), SHAPE)


def network(x, timestep, guided):
    """Points to TARGET, as a network would that knows a single video; its negative elsewhere."""
    sigma = jnp.maximum(timestep / 1000, 0.1)
    positive = jnp.sin((x - TARGET) / sigma)
    return positive, 0.5 * positive if guided else None


def given(counts=(0, 0)):
    mask = jnp.asarray(conditions.given_mask(counts, SHAPE[2]))[None]
    return sample.Given(jax.random.normal(jax.random.key(8), SHAPE), mask)


def run(config, steps=8, guidance=3.0, counts=(0, 0), net=network):
    plan = sample.plan_steps(config, steps, guidance)
    begin = jax.random.normal(jax.random.key(9), SHAPE)
    fresh = lambda i: jax.random.normal(jax.random.key(100 + i), SHAPE)  # noqa: E731
    velocity = functools.partial(sample.velocity, net, guidance)
    *_, last = sample.sample(velocity, solvers.step, plan, begin, given(counts), fresh)
    return last.x


@pytest.mark.parametrize("solver", solvers.SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_a_network_that_knows_the_answer_is_believed(solver, steps):
    exact = lambda x, timestep, guided: ((x - TARGET) / now[0], None)  # noqa: E731
    levels, now = schedule.shifted(steps), [1.0]
    state = solvers.begin(jax.random.normal(jax.random.key(0), SHAPE))
    rows = solvers.SOLVERS[solver](levels.sigmas)
    for i in range(steps):
        row = jax.tree.map(lambda a, i=i: a[i], rows)
        now[0] = row.sigma
        fresh = jax.random.normal(jax.random.key(i), SHAPE)
        state = solvers.step(state, exact(state.x, 0, False)[0], row, fresh)
    np.testing.assert_allclose(state.x, TARGET, atol=1e-5)


def test_unipc_comes_closer_than_euler():
    """The velocity is that of a Gaussian around TARGET, whose flow is known."""
    spread = 0.5

    def solve(name, steps):
        levels = schedule.shifted(steps)
        rows = solvers.SOLVERS[name](levels.sigmas)

        def step(state, row):
            sigma, alpha = row.sigma, 1 - row.sigma
            gain = alpha * spread**2 / (alpha**2 * spread**2 + sigma**2)
            clean = TARGET + gain * (state.x - alpha * TARGET)
            return solvers.step(state, (state.x - clean) / sigma, row), None

        begin = solvers.begin(jax.random.normal(jax.random.key(0), SHAPE))
        return jax.lax.scan(step, begin, rows)[0].x

    exact = TARGET + spread * jax.random.normal(jax.random.key(0), SHAPE)
    errors = {name: float(jnp.abs(solve(name, 20) - exact).mean()) for name in ("unipc", "euler")}
    assert errors["unipc"] < 0.7 * errors["euler"], errors


@pytest.mark.parametrize("solver", solvers.SOLVERS)
@pytest.mark.parametrize("counts", [(1, 1), (2, 0), (3, 1)])
def test_given_frames_stay(solver, counts):
    config = sample.SamplerConfig(solver=solver)
    found, frames = run(config, counts=counts), given(counts)
    mask = np.asarray(frames.mask)[..., None, None, None]
    # The first level is 0.9998 of noise, but the sample starts as all noise.
    np.testing.assert_allclose(found * mask, frames.clean * mask, atol=1e-3)
    assert np.abs((found - frames.clean) * (1 - mask)).max() > 0.1


def test_guidance_is_one_more_than_usual():
    positive, negative = jnp.float32(2), jnp.float32(1.5)
    assert sample.guide(positive, negative, 3) == negative + 4 * (positive - negative)
    assert sample.guide(positive, negative, 0) == positive


def test_options_that_save_time_save_calls_and_change_little():
    calls = []

    def counted(x, timestep, guided):
        calls.append(2 if guided else 1)
        return network(x, timestep, guided)

    full = run(sample.SamplerConfig(), net=counted, guidance=0.5)
    assert sum(calls) == 16
    for change, most in (({"guidance_from": 0.9}, 13), ({"evaluate_every": 2}, 10)):
        calls.clear()
        found = run(sample.SamplerConfig(**change), net=counted, guidance=0.5)
        assert sum(calls) <= most
        error = float(jnp.abs(found - full).mean())
        assert 1e-4 < error < 0.3


def test_distilled_networks_take_the_levels_of_their_list():
    config = sample.SamplerConfig(solver="renoise", step_list=(1000, 750, 500, 250))
    plan = sample.plan_steps(config, 35, 0)
    assert [step.kind for step in plan] == ["plain"] * 4
    np.testing.assert_allclose([step.row.sigma for step in plan], [1, 15 / 16, 5 / 6, 5 / 8])
    np.testing.assert_allclose([step.row.fresh for step in plan], [15 / 16, 5 / 6, 5 / 8, 0])
    assert np.isfinite(run(config)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shift": 0.0}, "must be positive"),
        ({"guidance_from": 0.2, "guidance_to": 0.5}, "use noise levels"),
        ({"evaluate_every": 0}, "at least 1"),
        ({"step_list": (1000, 500)}, "begins with pure noise"),
        ({"step_list": (500, 1000), "solver": "euler"}, "have to fall"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        sample.SamplerConfig(**change)


def test_noise_of_a_view_depends_on_nothing_else():
    draw = functools.partial(noise.of_request, 3, "clip", shape=SHAPE[2:])
    both, alone = draw([0, 5], chunk=1), draw([5], chunk=1)
    np.testing.assert_array_equal(both[:, 1], alone[:, 0])
    others = [draw([5], chunk=2), draw([4], chunk=1), draw([5], chunk=1, draw=1)]
    assert all(np.abs(alone - other).max() > 1 for other in others)


def test_noise_of_upstream_is_one_draw_in_another_order():
    drawn = np.random.RandomState(4).standard_normal((1, 2, 2 * 4, 4, 6)).astype(np.float32)
    one, eight = (noise.of_upstream(4, ranks, 2, (4, 4, 6, 2)) for ranks in (1, 8))
    np.testing.assert_array_equal(one, np.moveaxis(drawn.reshape(1, 2, 2, 4, 4, 6), 1, -1))
    assert (one != eight).any()
    np.testing.assert_array_equal(np.sort(one.ravel()), np.sort(eight.ravel()))


def test_ranks_that_upstream_refuses():
    noise.check_ranks(8, 8, 90)
    with pytest.raises(ValueError, match="use one of 1, 2, 3, 4, 5, 6"):
        noise.check_ranks(16, 8, 90)


@pytest.mark.parametrize("frames", range(8))
def test_given_pixels_count_as_latents(frames):
    assert conditions.latent_count(frames) == [0, 1, 1, 1, 1, 2, 2, 2][frames]


def test_chunks_overlap_and_continue():
    """The frames of a stub count up: those of each chunk follow the ones it was given."""
    layout = chunks.Layout(frames=9, overlap=5, chunks=3)

    def make(window):
        past = window.past[0, :, 0, 0, 0]
        following = past[-1] + 1 + np.arange(9 - len(past))
        numbers = np.concatenate([past, following]).astype(np.uint8)
        yield f"chunk {window.chunk}"
        return np.broadcast_to(numbers[None, :, None, None, None], (1, 9, 1, 1, 3))

    begin = np.zeros((1, 1, 1, 1, 3), np.uint8)
    told, *pieces = list(chunks.autoregress(make, layout, begin))
    assert told == "chunk 0" and pieces[1::2] == ["chunk 1", "chunk 2"]
    pieces = pieces[::2]
    found = np.concatenate([p.frames for p in pieces], axis=1)[0, :, 0, 0, 0]
    np.testing.assert_array_equal(found, np.arange(layout.total))
    again = list(chunks.autoregress(make, layout, pieces[0].past, first=1))[1::2]
    for old, new in itertools.zip_longest(pieces[1:], again):
        np.testing.assert_array_equal(old.frames, new.frames)


@pytest.mark.parametrize(("available", "count"), [(28, 0), (29, 1), (56, 1), (57, 2), (85, 3)])
def test_chunks_that_fit(available, count):
    assert chunks.chunks_within(available, 29, 1) == count


def test_overlaps_are_checked():
    with pytest.raises(ValueError, match="less than the 29 frames"):
        chunks.Layout(overlap=29)


@pytest.mark.parametrize("count", range(1, 8))
def test_grids_show_each_view_once(count):
    frames = np.ones((count, 2, 4, 6, 3), np.uint8)
    frames *= np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None, None]
    for grid in (outputs.square_grid(frames), outputs.around_grid(frames, range(count))):
        found, counts = np.unique(grid, return_counts=True)
        assert set(found) - {0} == set(range(1, count + 1))
        assert set(counts[found > 0]) == {2 * 4 * 6 * 3}


def test_files_are_named_as_upstream_names_them():
    names = outputs.file_names("a/clip", ["rear", "front_wide"], ["views", "grid"])
    assert names == {
        "arguments": "a/clip.json",
        "front_wide": "a/clip_front_wide.mp4",
        "rear": "a/clip_rear.mp4",
        "grid": "a/clip_grid.mp4",
    }


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_pixels_are_cut_in_their_type(dtype):
    """Every step rounded to the type, also in a compiled program."""
    video = np.linspace(-1.1, 1.1, 4001, dtype=np.float32)
    steps = video.astype(jnp.dtype(dtype))
    wanted = np.clip((steps + steps.dtype.type(1)) / steps.dtype.type(2), 0, 1)
    wanted = (wanted.astype(steps.dtype) * steps.dtype.type(255)).astype(np.uint8)
    found = jax.jit(lambda x: programs.truncated(x.astype(dtype)))(video)
    np.testing.assert_array_equal(found, wanted)
    exact = np.floor(np.clip((video + 1) / 2, 0, 1) * 255)
    assert (found != exact).mean() < 0.01 if dtype == "float32" else (found != exact).mean() > 0.1
