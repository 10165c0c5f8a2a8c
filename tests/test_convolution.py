"""Convolutions with gradients of our own against JAX's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import repeat

from jaxvid.core.convolution import LAYOUT, PIXELS, convolve, convolve_doubled

SAME = ((1, 1), (1, 1))


def reference(x, kernel, stride=1, padding=SAME):
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def arrays(shape, size, features=5):
    first, second = jax.random.split(jax.random.key(0))
    kernel = jax.random.normal(second, (size, size, shape[-1], features))
    return jax.random.normal(first, shape), kernel


def gradients(function, *inputs):
    return jax.jit(jax.grad(lambda *a: jnp.sum(jnp.sin(function(*a))), (0, 1)))(*inputs)


@pytest.mark.parametrize(
    "shape, size, stride, padding",
    [
        ((6, 8, 10, 4), 3, 1, SAME),
        ((3, 8, 8, 4), 3, 2, SAME),
        ((3, 9, 7, 4), 3, 2, SAME),
        ((2, 8, 8, 4), 2, 1, ((1, 0), (0, 1))),
        ((2, 16, 16, 3), 7, 2, ((2, 3), (3, 3))),
    ],
)
def test_gradients_equal_those_of_jax(shape, size, stride, padding):
    x, kernel = arrays(shape, size)
    ours = gradients(lambda x, k: convolve(x, k, stride, padding), x, kernel)
    wanted = gradients(lambda x, k: reference(x, k, stride, padding), x, kernel)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), ours, wanted)


def test_many_images_are_summed_in_parts():
    side = int((PIXELS / 2) ** 0.5)  # two images per part
    x, kernel = arrays((6, side, side, 2), 3)
    ours, wanted = gradients(convolve, x, kernel), gradients(reference, x, kernel)
    np.testing.assert_allclose(ours[1], wanted[1], rtol=1e-4, atol=1e-3)  # sums of 24,000 terms


def test_doubled_images():
    def enlarged(x, kernel):
        return reference(repeat(x, "n h w c -> n (h up) (w left) c", up=2, left=2), kernel)

    x, kernel = arrays((3, 6, 4, 4), 3)
    found = convolve_doubled(x, kernel)
    np.testing.assert_allclose(found, enlarged(x, kernel), atol=1e-5)  # kernel rows summed first
    ours, wanted = gradients(convolve_doubled, x, kernel), gradients(enlarged, x, kernel)
    close = functools.partial(np.testing.assert_allclose, atol=1e-4)  # sums of 100 terms of 1 to 10
    jax.tree.map(close, ours, wanted)
