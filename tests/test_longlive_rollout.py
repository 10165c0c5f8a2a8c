"""Rollouts of LongLive: the cache against full attention, resumption, prompts, what compiles."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_wan
from small_wan import CONFIG, ROLLOUT, SIZE, latents, text

from jaxvid.core.mesh import MeshConfig, make_mesh, shardings
from jaxvid.core.rope import grid_rope
from jaxvid.longlive import rollout
from jaxvid.wan.dit import RULES, Dit, attend_all

TOKENS = SIZE[0] * SIZE[1] // 4
CLOSE = {"atol": 2e-5, "rtol": 2e-5}  # float32; the order of sums differs


@pytest.fixture(scope="module")
def params():
    return small_wan.parameters()


def noise(config=ROLLOUT, batch=1, seed=3):
    keys = jax.random.split(jax.random.key(seed), batch)
    return rollout.keyed_noise(keys, config, (*SIZE, CONFIG.channels))


def begin(network, params, seed=0, batch=1):
    return rollout.begin(network, params, text(seed, batch), (batch, *SIZE, CONFIG.channels))


def video(network, config, params, state, end, **more):
    batch = state.recent.shape[0]
    blocks = rollout.generate(network, config, params, state, noise(config, batch), end, **more)
    return np.concatenate([np.asarray(block.latents) for block in blocks], axis=1)


def seen(block: int, window: int, sink: int, frames: int) -> np.ndarray:
    """(frames, frames): which frames' keys the clean pass over each frame looks at."""
    mask = np.zeros((frames, frames), bool)
    for frame in range(frames):
        end = (frame // block + 1) * block
        mask[frame, max(end - (window - sink), 0) : end] = True
        mask[frame, : min(sink, end)] = True
    return mask


def full(params, x, timesteps, words, mask, positions):
    """The velocity of one call with a mask between frames (t, t)."""
    mask = np.kron(mask, np.ones((TOKENS, TOKENS), bool))[None, None]
    rope = grid_rope(CONFIG.head_width, jnp.asarray(positions), SIZE[0] // 2, SIZE[1] // 2)

    @jax.jit
    def velocity(params, x, timesteps, words):
        return Dit(CONFIG).apply({"params": params}, x, timesteps, words, attend_all(rope, mask))[0]

    return velocity(params, x, timesteps, words)


@pytest.mark.parametrize(("window", "sink"), [(6, 1), (6, 2), (5, 0), (7, 2), (-1, 0)])
def test_cached_passes_equal_full_attention(params, window, sink):
    """Clean passes block by block, then a noisy block, against [clean | noisy] in one call."""
    config = dataclasses.replace(ROLLOUT, window=window, sink=sink)
    frames, block = 12, config.block
    clean, noisy = latents(frames), latents(block, seed=6)
    network = small_wan.network(config, frames + block)
    state = begin(network, params)
    for start in range(0, frames, block):
        state = rollout.observe(network, config, params, state, clean[:, start : start + block])
    cached, _ = jax.jit(network.forward)(
        params, noisy, 937.5, state.text, state.cache, frames + jnp.arange(block), frames + block
    )
    mask = seen(block, network.window.frames, sink, frames + block)
    times = jnp.asarray([0.0] * frames + [937.5] * block)[None]
    whole = full(params, jnp.concatenate([clean, noisy], 1), times, text(0), mask,
                 np.arange(frames + block))  # fmt: skip
    np.testing.assert_allclose(cached, whole[:, frames:], **CLOSE)


def test_recache_equals_a_call_with_the_new_prompt(params):
    """While the window holds the whole video, a switch leaves nothing of the old prompt."""
    network, clean, noisy = small_wan.network(), latents(4), latents(2, seed=6)
    state = begin(network, params)
    for start in (0, 2):
        state = rollout.observe(network, ROLLOUT, params, state, clean[:, start : start + 2])
    state = rollout.switch(network, ROLLOUT, params, state, text(1), 4)
    cached, _ = jax.jit(network.forward)(
        params, noisy, 500.0, state.text, state.cache, 4 + jnp.arange(2), 6
    )
    mask = np.ones((6, 6), bool)
    mask[:4, 4:] = False
    times = jnp.asarray([0.0] * 4 + [500.0] * 2)[None]
    x = jnp.concatenate([clean, noisy], 1)
    whole = full(params, x, times, text(1), mask, np.arange(6))
    np.testing.assert_allclose(cached, whole[:, 4:], **CLOSE)


@pytest.mark.parametrize("relative", [False, True])
def test_resumed_equals_undisturbed(params, relative):
    config = dataclasses.replace(ROLLOUT, relative_rope=relative)
    network = small_wan.network(config)
    switches = {"text_at": rollout.scheduled([text(1), text(2)], [3, 9])}
    undisturbed = video(network, config, params, begin(network, params), 16, **switches)
    switches = {"text_at": rollout.scheduled([text(1), text(2)], [3, 9])}
    first = list(rollout.generate(
        network, config, params, begin(network, params), noise(config), 8, **switches))  # fmt: skip
    state = jax.tree.map(jnp.asarray, jax.device_get(first[-1].state))
    rest = video(network, config, params, state, 16, text_at=rollout.scheduled([text(2)], [9]))
    np.testing.assert_array_equal(undisturbed[:, 8:], rest)


def test_relative_positions_have_no_end(params):
    """Past 1024 frames, and equal to absolute ones until the first frame is left behind."""
    relative = dataclasses.replace(ROLLOUT, relative_rope=True)
    ours, theirs = small_wan.network(relative), small_wan.network(ROLLOUT)
    a = video(ours, relative, params, begin(ours, params), 6)
    b = video(theirs, ROLLOUT, params, begin(theirs, params), 6)
    np.testing.assert_allclose(a, b, **CLOSE)
    state = begin(ours, params)
    for start in range(0, 8, 2):
        state = rollout.observe(ours, relative, params, state, latents(8)[:, start : start + 2])
    states = [state, state._replace(frame=state.frame + 10 * ours.window.ring * 250)]
    states = [jax.tree.map(jnp.copy, state) for state in states]
    near, far = (rollout.advance(ours, relative, params, s, noise(relative)(8)) for s in states)
    assert int(far[0].frame) > 10_000
    np.testing.assert_array_equal(near[1], far[1])  # positions are those of the window
    with pytest.raises(ValueError, match="relative_rope=True"):
        ROLLOUT.cache_window(1025)


@pytest.mark.slow
def test_batch_equals_one_by_one(params):
    network = small_wan.network()
    both = video(network, ROLLOUT, params, begin(network, params, batch=2), 8)
    keys = jax.random.split(jax.random.key(3), 2)
    for i in range(2):
        state = rollout.begin(network, params, text(0, 2)[i : i + 1], (1, *SIZE, CONFIG.channels))
        draw = rollout.keyed_noise(keys[i : i + 1], ROLLOUT, (*SIZE, CONFIG.channels))
        blocks = list(rollout.generate(network, ROLLOUT, params, state, draw, 8))
        one = np.concatenate([block.latents for block in blocks], axis=1)
        np.testing.assert_allclose(both[i : i + 1], one, **CLOSE)


@pytest.mark.parametrize(
    "sizes",
    [
        (2, 1, 2, 2),
        pytest.param((1, 1, 4, 2), marks=pytest.mark.slow),
        pytest.param((1, 1, 8, 1), marks=pytest.mark.slow),
        pytest.param((1, 2, 2, 2), marks=pytest.mark.slow),
    ],
)
def test_eight_devices_equal_one(params, sizes):
    """Requests over `data`, tokens over `view` and `seq`, heads over `tensor`."""
    network, switches = small_wan.network(), [text(1, 2)]
    one = video(network, ROLLOUT, params, begin(network, params, batch=2), 8,
                text_at=rollout.scheduled(switches, [6]))  # fmt: skip
    mesh = make_mesh(MeshConfig(*sizes))
    split = jax.device_put(params, shardings(params, RULES, mesh))
    with jax.set_mesh(mesh):
        eight = video(network, ROLLOUT, split, begin(network, split, batch=2), 8,
                      text_at=rollout.scheduled(switches, [6]))  # fmt: skip
    np.testing.assert_allclose(eight, one, **CLOSE)


def test_remainder_is_generated_and_cut(params):
    network = small_wan.network()
    given = latents(3)

    def conditioned(config, end):
        state = begin(network, params)
        state = rollout.condition(network, config, params, state, given)
        return video(network, config, params, state, end)

    short, long = conditioned(ROLLOUT, 8), conditioned(ROLLOUT, 9)
    assert short.shape[1] == 5 and long.shape[1] == 6
    np.testing.assert_array_equal(short, long[:, :5])
    blank = conditioned(dataclasses.replace(ROLLOUT, blank_tail=True), 8)
    assert not blank[:, 4:].any() and blank[:, :4].any()


@pytest.mark.slow
def test_faults_are_off(params):
    """Without the named option, neither a zero sink nor a noisy one."""
    config = dataclasses.replace(ROLLOUT, global_sink=False)
    zero = dataclasses.replace(config, zero_sink=True)
    network = small_wan.network(config)

    def sink_after_switch(config):
        state = begin(network, params)
        for start in range(0, 8, 2):
            state = rollout.observe(network, config, params, state, latents(8)[:, start:][:, :2])
        state = rollout.switch(network, config, params, state, text(1), 8)
        return np.asarray(state.cache.k)[:, :, :TOKENS]

    assert sink_after_switch(config).all() and not sink_after_switch(zero).any()
    wide = dataclasses.replace(ROLLOUT, sink=3, window=8)
    noisy = dataclasses.replace(wide, noisy_sink=True)
    results = []
    for config in (wide, noisy):
        network = small_wan.network(config)
        results.append(video(network, config, params, begin(network, params), 4))
    assert np.abs(results[0] - results[1]).max() > 1e-3


class Counting:
    """A network that is no network: the velocity is a constant; it notes how it is called."""

    def __init__(self):
        self.window = ROLLOUT.cache_window(100)
        self.traced = []

    def text_keys(self, params, text):
        return text

    def empty_cache(self, batch, height, width):
        return jnp.zeros(())

    def forward(self, params, x, timestep, text, cache, frames, end, **slots):
        self.traced.append(x.shape[1])
        return jnp.full_like(x, params), cache + 1


def test_sampler_knows_no_network():
    """With a constant velocity a step list of one level ends at noise - velocity."""
    network, config = Counting(), dataclasses.replace(ROLLOUT, steps=(1000,))
    state = rollout.begin(network, 2.0, jnp.zeros((1, 1, 1)), (1, *SIZE, 1))
    draw = rollout.keyed_noise(jax.random.split(jax.random.key(0), 1), config, (*SIZE, 1))
    blocks = rollout.generate(network, config, 2.0, state, draw)  # without an end
    for frame in range(0, 20, 2):
        block = next(blocks)
        np.testing.assert_allclose(block.latents, draw(frame)[0] - 2.0, atol=1e-6)
    assert int(block.state.cache) == 20  # a denoising and a clean pass per block
    assert network.traced == [2]  # one program for all blocks


def test_prompts_can_be_pushed_while_it_runs(params):
    network = small_wan.network()
    pushed = []
    blocks = rollout.generate(
        network, ROLLOUT, params, begin(network, params), noise(),
        text_at=lambda frame: pushed.pop() if pushed else None)  # fmt: skip
    interactive = [np.asarray(next(blocks).latents) for _ in range(3)]
    pushed.append(text(1))
    interactive += [np.asarray(next(blocks).latents) for _ in range(2)]
    planned = video(network, ROLLOUT, params, begin(network, params), 10,
                    text_at=rollout.scheduled([text(1)], [6]))  # fmt: skip
    np.testing.assert_array_equal(np.concatenate(interactive, 1), planned)


def test_one_program_for_all_blocks_and_no_copy_of_the_cache(params):
    config = dataclasses.replace(ROLLOUT, shift=4.0)  # a program of its own
    network = small_wan.network(config)
    state, draw = begin(network, params), noise(config)
    before = rollout.advance._cache_size()
    sizes = []
    for block in rollout.generate(network, config, params, state, draw, 400):  # noqa: B007
        sizes.append(sum(a.nbytes for a in jax.live_arrays()))
    assert rollout.advance._cache_size() == before + 1
    assert len(sizes) == 200 and len(set(sizes[2:])) == 1
    compiled = rollout.advance.lower(network, config, params, block.state, draw(0)).compile()
    text_ = compiled.as_text()
    assert "input_output_alias" in text_
    shape = ",".join(map(str, block.state.cache.k.shape))
    assert not re.findall(rf"= f32\[{shape}\]\S* copy\(", text_)
    alias = compiled.memory_analysis().alias_size_in_bytes
    assert alias >= sum(a.nbytes for a in block.state.cache)


def test_switches_happen_at_block_borders():
    at = rollout.scheduled(["b", "c", "d"], [4, 5, 13])
    assert [at(frame) for frame in range(0, 21, 3)] == [None, None, "b", "c", None, "d", None]
    with pytest.raises(ValueError, match="rising"):
        rollout.scheduled(["b", "c"], [5, 4])


def test_errors_are_one_line():
    with pytest.raises(ValueError, match=r"block=3 plus sink=3.*at least 6"):
        rollout.RolloutConfig(window=5)
    with pytest.raises(ValueError, match="have to fall"):
        rollout.RolloutConfig(steps=(500, 1000))
    with pytest.raises(ValueError, match="are no multiples of the patch"):
        CONFIG.grid(3, 5, 4)
