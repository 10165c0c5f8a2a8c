"""Switches of the FDM network that no golden covers: remat, bfloat16, dropout, t=0, sharding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_params
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.fdm.model import abstract_parameters, network
from jaxvid.fdm.unet import Frames, UNetConfig

CONFIG = UNetConfig(image_size=8, channels=32, channel_mult=(1,), attention_at=(1,))
FRAMES = Frames(
    jnp.array([[0, 1, 2, 5, 9]] * 2),
    jnp.array([[1.0, 1, 0, 0, 0]] * 2),
    jnp.array([[0.0, 0, 1, 1, 1]] * 2),
)
TIMES = jnp.array([20.0, 800.0])


def randomised(config):
    return random_params.everywhere(abstract_parameters(config), 0.05)


@pytest.fixture(scope="module")
def inputs():
    return jax.random.normal(jax.random.key(1), (2, 2, 5, 8, 8, 3))


@functools.partial(jax.jit, static_argnums=0)
def loss_and_gradient(config, params, x, x0):
    def loss(params):
        return jnp.mean(jnp.square(network(config, params, x, x0, TIMES, FRAMES)))

    return jax.value_and_grad(loss)(params)


@pytest.mark.slow
def test_remat_changes_nothing(inputs):
    params = randomised(CONFIG)
    loss, gradient = loss_and_gradient(CONFIG, params, *inputs)
    other, found = loss_and_gradient(dataclasses.replace(CONFIG, remat=True), params, *inputs)
    np.testing.assert_allclose(other, loss, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)  # sums in another order


def test_bfloat16_is_close_and_stays_finite(inputs):
    params = randomised(CONFIG)
    loss, _ = loss_and_gradient(CONFIG, params, *inputs)
    other, gradient = loss_and_gradient(
        dataclasses.replace(CONFIG, dtype="bfloat16"), params, *inputs
    )
    np.testing.assert_allclose(other, loss, rtol=0.05)  # 8 bits of mantissa
    assert all(np.isfinite(g).all() and g.dtype == jnp.float32 for g in jax.tree.leaves(gradient))


def test_dropout_draws_from_its_key(inputs):
    config = dataclasses.replace(CONFIG, dropout=0.5)
    params = randomised(config)
    call = jax.jit(functools.partial(network, config))
    outs = [call(params, *inputs, TIMES, FRAMES, jax.random.key(i)) for i in (0, 0, 1)]
    np.testing.assert_array_equal(outs[0], outs[1])
    assert not np.allclose(outs[0], outs[2])


def test_timestep_indicator_marks_observed_frames_only(inputs):
    """The clean frames enter through the time embedding: time -1 where observed."""
    config = dataclasses.replace(CONFIG, indicator="timestep")
    params = randomised(config)
    call = jax.jit(functools.partial(network, config))
    none = FRAMES._replace(observed=jnp.zeros((2, 5)), latent=jnp.ones((2, 5)))
    assert not np.allclose(
        call(params, *inputs, TIMES, FRAMES)[:, 2:], call(params, *inputs, TIMES, none)[:, 2:]
    )


def test_frames_of_other_groups_do_not_attend(inputs):
    """Attention is masked: without the pooled norm's share, a padding frame changes no other."""
    x, x0 = inputs
    params = randomised(CONFIG)
    frames = FRAMES._replace(real=jnp.array([[1.0, 1, 1, 1, 0]] * 2))
    call = jax.jit(functools.partial(network, CONFIG))
    out = call(params, x, x0, TIMES, frames)
    other = call(params, x.at[:, 4].set(7.0), x0, TIMES, frames)
    np.testing.assert_array_equal(out[:, :4], other[:, :4])
    assert np.isfinite(out).all()


@pytest.mark.parametrize("sizes", [{"data": 2, "view": 4}, {"data": 1, "view": 8}])
def test_sharded_equals_unsharded(inputs, sizes):
    params = randomised(CONFIG)
    call = jax.jit(functools.partial(network, CONFIG))
    wanted = call(params, *inputs, TIMES, FRAMES)
    mesh = make_mesh(MeshConfig(**sizes))
    with jax.set_mesh(mesh):
        x, x0 = jax.device_put(inputs, NamedSharding(mesh, P(None, "data")))
        found = jax.jit(functools.partial(network, CONFIG))(params, x, x0, TIMES, FRAMES)
    np.testing.assert_allclose(found, wanted, atol=2e-5)  # float32; sums in another order


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 48}, "multiple of 32"),
        ({"image_size": 48, "channel_mult": ()}, "image_size=48"),
        ({"heads": 5}, "heads=5"),
        ({"positions": "table"}, "buckets"),
        ({"channel_mult": (1, 1, 1, 1, 1)}, "halved"),
    ],
)
def test_impossible_networks_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)
