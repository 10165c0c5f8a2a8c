"""Training pieces of LongLive: what gets gradients, masks, adapters."""

import copy
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_wan
from small_wan import CONFIG, ROLLOUT, SIZE, latents, quick_jit, text

from jaxvid.core import checkpoint
from jaxvid.core.config import load_config, override
from jaxvid.core.mesh import make_mesh
from jaxvid.longlive import losses, rollout, self_forcing, train_run
from jaxvid.longlive.forcing import diffusion_forcing, teacher_forcing
from jaxvid.longlive.train_run import LongLiveTraining
from jaxvid.longlive.train_setup import training_setup
from jaxvid.runs import training
from jaxvid.wan.lora import Dense, LoraConfig, beside, initial_adapters, merge

ROOT = Path(__file__).parents[1]
SHAPE = (1, *SIZE, CONFIG.channels)


@pytest.fixture(scope="module")
def params():
    return small_wan.parameters()


def draws(blocks: int, steps: int, seed: int = 2):
    noise = jax.random.normal(jax.random.key(seed), (blocks, steps, 1, 2, *SHAPE[1:]))
    return noise, jnp.zeros((blocks, *noise.shape[2:]))


def test_adapters_learn_beside_frozen_parameters(params):
    """Only adapters move, and the loss of a teacher-forced video falls."""
    clean, noise = latents(4), latents(4, seed=8)
    times = jnp.full((1, 4), 500.0)
    x = (clean + noise) / 2
    lora = initial_adapters(params, LoraConfig(rank=2, alpha=2), jax.random.key(0))

    @quick_jit
    def step(lora):
        def loss(lora):
            adapted = beside(params, lora, 1.0)
            velocity = teacher_forcing(CONFIG, adapted, clean, 0 * times, x, times, text(0), 2)
            return losses.flow_matching(velocity, clean, noise, jnp.ones((1, 4)))

        value, gradient = jax.value_and_grad(loss)(lora)
        return jax.tree.map(lambda a, g: a - 0.05 * g, lora, gradient), value

    values = []
    for _ in range(20):
        lora, value = step(lora)
        values.append(float(value))
    assert values[-1] < 0.9 * values[0], values


def test_merged_adapters_equal_those_beside(params):
    lora = initial_adapters(params, LoraConfig(rank=2), jax.random.key(0))
    lora = jax.tree.map(lambda a: a + 0.05, lora)
    clean, times = latents(4), jnp.full((1, 4), 500.0)

    @quick_jit
    def velocity(params):
        return diffusion_forcing(CONFIG, params, clean, times, text(0), 2, -1)

    plain, merged, adapted = map(
        velocity, (params, merge(params, lora, 2.0), beside(params, lora, 2.0))
    )
    assert np.abs(merged - plain).max() > 1e-2
    np.testing.assert_allclose(adapted, merged, atol=1e-5)  # float32; the order of sums differs


def test_small_changes_survive_half_precision():
    """A kernel in bfloat16 takes up few of them; outputs change as in float32, but for rounding."""
    x, kernel, a, b = (
        np.asarray(jax.random.normal(key, shape) * size, np.float32)
        for key, shape, size in zip(
            jax.random.split(jax.random.key(0), 4),
            ((4096, 64), (64, 32), (64, 2), (2, 32)), (1, 1, 1, 3e-4), strict=True,
        )
    )  # fmt: skip
    half = {"kernel": kernel.astype(jnp.bfloat16)}
    merged = merge({"d": half}, {"d": {"a": a, "b": b}}, 1.0)["d"]
    assert (merged["kernel"] == half["kernel"]).mean() > 0.8
    layer = Dense(32, use_bias=False, dtype=jnp.bfloat16)
    adapted = beside({"d": half}, {"d": {"a": a, "b": b}}, 1.0)["d"]
    before, after = (np.float32(layer.apply({"params": p}, x)) for p in (half, adapted))
    wanted = x @ a @ b
    assert abs(((after - before) * wanted).sum() / (wanted**2).sum() - 1) < 0.1


@pytest.mark.parametrize("window", [-1, 2, 4])
def test_diffusion_forcing_is_causal(params, window):
    """The gradient of a frame by the input is zero where its block does not see it."""
    x, times = latents(6), jnp.full((1, 6), 500.0)

    def energies(x):
        velocity = diffusion_forcing(CONFIG, params, x, times, text(0), 2, window)
        return jnp.square(velocity).sum((0, 2, 3, 4))

    gradients = np.abs(quick_jit(jax.jacrev(energies))(x)).sum((1, 3, 4, 5))
    for frame, gradient in enumerate(gradients):
        end = (frame // 2 + 1) * 2
        depth = CONFIG.depth * (window - 2) if window > 0 else end  # a window reaches on by layers
        start = max(end - 2 - depth, 0)
        assert not gradient[end:].any() and not gradient[:start].any()
        assert gradient[start:end].all()


@pytest.mark.slow
def test_remat_changes_no_gradient(params):
    """Recomputing blocks and a frozen cache give the same gradient as keeping everything."""
    noise, context = draws(3, 2)
    gradients = []
    for remat in (False, True):
        wan = dataclasses.replace(CONFIG, remat=remat)
        network = small_wan.network(wan=wan)

        def loss(params, network=network):
            state = rollout.begin(network, params, text(0), SHAPE)
            _, video = self_forcing.train_chunk(
                network, ROLLOUT, params, state, text(0), noise, context, 1
            )
            return jnp.square(video).mean()

        gradients.append(quick_jit(jax.grad(loss))(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-5), *gradients)


def test_training_rollout_equals_inference(params):
    """The last exit step without context noise in the conversion makes inference's video."""
    network = small_wan.network()
    noise, context = draws(3, 2)
    state = rollout.begin(network, params, text(0), SHAPE)
    blocks = rollout.generate(
        network, ROLLOUT, params, state, lambda frame: noise[frame // 2], 6
    )  # fmt: skip
    wanted = next(blocks).latents  # later blocks see a context with a little noise in training
    state = rollout.begin(network, params, text(0), SHAPE)
    _, found = self_forcing.train_chunk(
        network, ROLLOUT, params, state, text(0), noise, context, len(ROLLOUT.steps) - 1
    )
    np.testing.assert_allclose(found[:, :2], wanted, atol=1e-5)


def test_gradient_of_dmd_is_the_direction():
    video, direction = latents(6), latents(6, seed=9)
    mask = jnp.arange(6) >= 2
    gradient = jax.grad(lambda v: losses.dmd_loss(v, direction, mask))(video)
    count = 4 * SIZE[0] * SIZE[1] * CONFIG.channels
    np.testing.assert_allclose(gradient[:, 2:], direction[:, 2:] / count, rtol=1e-5)
    assert not gradient[:, :2].any()


def test_clip_and_its_mask():
    clip, mask = self_forcing.loss_clip(latents(5), latents(3, seed=9), 6, latents(1, seed=10))
    np.testing.assert_array_equal(clip[:, 1:3], latents(5)[:, 3:])
    np.testing.assert_array_equal(clip[:, 0], latents(1, seed=10)[:, 0])
    np.testing.assert_array_equal(clip[:, 3:], latents(3, seed=9))
    assert mask.tolist() == [False] * 3 + [True] * 3


def test_other_texts_and_other_data_are_another_run(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)

    def opened(*changes):
        config = load_config("configs/longlive_train.py:tiny_flow_matching")
        override(config, [f"run.output={tmp_path}", *changes])
        system = LongLiveTraining(training_setup(config))
        system.open(make_mesh(system.mesh, jax.devices()[:1]))
        return system

    first = opened()
    state, info = {"x": np.zeros(1)}, {"setup": first.fingerprint}
    checkpoint.save_step(tmp_path / "checkpoints", 1, state, info, keep=1)
    with pytest.raises(ValueError, match=r"holds a run with models\.text="):
        training.start(opened("models.random_seed=7"))
    other = copy.copy(first.source)
    other.clips = other.clips[::-1]
    monkeypatch.setattr(train_run, "open_data", lambda _: other)
    with pytest.raises(ValueError, match=r"holds a run with data\.listed="):
        training.start(opened())
