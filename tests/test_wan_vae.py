"""The VAE: streamed as whole, sharded as whole, causality, and what it refuses."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_vae import CONFIG, jit, jitted, latents, parameters, video

from jaxvid.core.ahead import collectives
from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.wan import vae, vae_layers

close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)  # order of sums


def streamed(call, x, partition):
    past, pieces, start = None, [], 0
    for size in partition:
        piece, past = call(parameters(), x[:, start : start + size], past)
        pieces.append(piece)
        start += size
    assert start == x.shape[1]
    return jnp.concatenate(pieces, axis=1)


@pytest.mark.parametrize("partition", [(1, 2), (2, 1), (1, 1, 1)])
def test_streamed_decoding_equals_whole(partition):
    call = jitted(vae.decode_next)
    whole = call(parameters(), latents(3))[0]
    assert whole.shape == (1, CONFIG.pixel_frames(3), 8, 12, 3)
    close(streamed(call, latents(3), partition), whole)


@pytest.mark.parametrize("partition", [(1, 4, 4), (5, 4), (1, 8)])
def test_streamed_encoding_equals_whole(partition):
    call = jitted(vae.encode_next)
    whole = call(parameters(), video(9))[0]
    assert whole.shape == (1, CONFIG.latent_frames(9), 2, 3, 3)
    close(streamed(call, video(9), partition), whole)


def test_scans_equal_whole():
    """The first frame, two pieces of two, a rest of one."""
    for function, x in ((vae.encode, video(21)), (vae.decode, latents(6))):
        whole = jitted(function)(parameters(), x)
        close(jitted(function, step=2)(parameters(), x), whole)


def test_convolutions_agree():
    plain, other = (
        dataclasses.replace(CONFIG, convolution=implementation) for implementation in ("3d", "2d")
    )
    for function, x in ((vae.encode, video(9)), (vae.decode, latents(3))):
        close(*(jitted(function, config)(parameters(), x) for config in (plain, other)))


def test_nothing_sees_the_future():
    """Gradients of a frame reach earlier latents and its own, and no later ones."""

    def energy(x, frame):
        return jnp.sum(jnp.square(vae.decode(CONFIG, parameters(), x)[:, frame]))

    gradient = jit(jax.grad(energy))
    for frame, last in ((0, 0), (1, 1), (4, 1), (5, 2), (8, 2)):
        found = np.abs(gradient(latents(3), frame)).max(axis=(0, 2, 3, 4))
        np.testing.assert_array_equal(found > 0, np.arange(3) <= last, f"frame {frame}")


def test_a_prefix_codes_to_a_prefix():
    call = jitted(vae.encode_next)
    whole = call(parameters(), video(9))[0]
    for frames in (1, 5):
        short = call(parameters(), video(9)[:, :frames])[0]
        close(short, whole[:, : CONFIG.latent_frames(frames)])


def test_attention_looks_around():
    """Moving one pixel of a frame moves all its others, and no other frame."""
    layer = vae_layers.FrameAttention("float32")
    x = jax.random.normal(jax.random.key(0), (1, 2, 2, 3, 4))
    params = layer.init(jax.random.key(1), x)
    moved = layer.apply(params, x) - layer.apply(params, x.at[0, 0, 0, 0].add(1))
    changed = np.abs(moved).max(axis=(0, 4)) > 1e-6
    assert changed[0].all() and not changed[1].any()


def test_norm_of_zero_has_finite_gradients():
    layer = vae_layers.RMSNorm()
    params = layer.init(jax.random.key(0), jnp.zeros(4))
    gradient = jax.grad(lambda x: layer.apply(params, x).sum())(jnp.zeros(4))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("sizes", [{"data": 2, "seq": 2, "tensor": 2}])
def test_sharded_equals_one_device(sizes):
    """Batch over data and views, width over the rest; the cache is split in the same way."""
    mesh = make_mesh(MeshConfig(**{"data": 1, **sizes}))
    x, call = latents(3, batch=2, size=(2, 8)), jitted(vae.decode_next)
    first, past = call(parameters(), x[:, :1])
    rest, _ = call(parameters(), x[:, 1:], past)
    with jax.set_mesh(mesh):
        split_first, past = call(parameters(), x[:, :1])
        program = call.lower(parameters(), x[:, 1:], past).compile()
        split_rest, past = program(parameters(), x[:, 1:], past)
    close(split_first, first)
    close(split_rest, rest)
    for cache in jax.tree.leaves(past):
        assert cache.sharding.shard_shape(cache.shape)[3] * 4 == cache.shape[3]
    found = collectives(program.as_text())
    assert set(found) == {"all-gather", "collective-permute"}
    assert found["all-gather"]["count"] == 2  # keys and values of the attention


def test_the_cache_is_donated():
    call = jit(functools.partial(vae.decode_next, CONFIG), donate_argnums=2)
    _, past = call(parameters(), latents(1))
    program = call.lower(parameters(), latents(1), past).compile()
    size = sum(cache.nbytes for cache in jax.tree.leaves(past))
    assert program.memory_analysis().alias_size_in_bytes == size


@pytest.mark.slow
def test_half_precision():
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    whole, half = (jitted(vae.decode, c)(parameters(), latents(2)) for c in (CONFIG, config))
    assert half.dtype == jnp.float32
    error = np.sqrt(np.mean(np.square(half - whole)))
    assert error < 0.05 * np.std(whole)  # measured 0.02 for upstream's own bfloat16
    _, past = jitted(vae.decode_next, config)(parameters(), latents(2))
    assert {cache.dtype for cache in jax.tree.leaves(past)} == {jnp.dtype("bfloat16")}


def test_normalisation():
    mean, scale = vae.constants(vae.VaeConfig())
    np.testing.assert_allclose(mean[:2], [-0.7571, -0.7089], rtol=1e-6)
    np.testing.assert_allclose(scale[:2], [1 / 2.8184, 1 / 1.4541], rtol=1e-6)
    plain = dataclasses.replace(CONFIG, mean=(0.0,) * 3, std=(1.0,) * 3)
    raw = jitted(vae.encode, plain)(parameters(), video(9))
    own_mean, own_scale = vae.constants(CONFIG)
    normal = jitted(vae.encode)(parameters(), video(9))
    close(normal, (raw - own_mean) * own_scale)
    close(jitted(vae.decode)(parameters(), normal), jitted(vae.decode, plain)(parameters(), raw))


def one_line(message, function, *arguments, **settings):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        function(*arguments, **settings)
    assert "\n" not in str(error.value)


def test_bad_input_is_one_line():
    release = vae.VaeConfig()
    assert release.time_stride == 4 and release.space_stride == 8
    assert release.latent_frames(81) == 21 and release.pixel_frames(21) == 81
    assert release.latent_size(480, 832) == (60, 104)
    one_line("80 frames do not fit the VAE: use 4 * k + 1, e.g. 77", release.latent_frames, 80)
    one_line("0 frames do not fit the VAE: use 4 * k + 1, e.g. 1", release.latent_frames, 0)
    one_line("e.g. 480x848", release.latent_size, 481, 850)
    encode = functools.partial(vae.encode_next, CONFIG, parameters())
    one_line("6 frames do not fit", encode, video(6))
    past = {}  # is not looked at
    one_line("3 frames do not fit the VAE after the first piece", encode, video(3), past)
    one_line("step=0", vae.decode, CONFIG, parameters(), latents(2), step=0)
    one_line("3 borders", vae.VaeConfig, halve_time=(True, True))
    one_line("mean has 16 numbers", vae.VaeConfig, latent_channels=4)
    one_line("blocks=0", vae.VaeConfig, blocks=0)
