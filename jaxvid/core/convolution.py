"""2-D convolutions whose gradients are fast on CPUs too.

XLA:CPU computes a plain forward convolution well, but the gradient of the weights slows down
several times over with the number of images, and inside `lax.scan` both gradients become naive
loops (jax 0.10: up to 70 times slower). So on CPUs both are written as forward convolutions here.
Other platforms get JAX's own gradients.
"""

import functools

import jax
import jax.numpy as jnp
from einops import rearrange

LAYOUT = ("NHWC", "HWIO", "NHWC")
PIXELS = 8192  # output pixels per convolution of a weight gradient; measured with AVX-512


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x, kernel, stride: int = 1, padding=((1, 1), (1, 1))):
    """Cross-correlation of images with a kernel, as in `nn.Conv` without its bias.

    Args:
      x: (n, h, w, c) images.
      kernel: (height, width, c, features).
      stride: of both axes.
      padding: zeros before and after the rows and the columns.
    Returns:
      (n, h', w', features)
    """
    return _plain(x, kernel, stride, padding)


def _plain(x, kernel, stride, padding):
    strides = (stride, stride)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def _forward(x, kernel, stride, padding):
    return _plain(x, kernel, stride, padding), (x, kernel)


def _backward(stride, padding, kept, g):
    """g: (n, h', w', features) gradient of the output; returns those of x and the kernel."""

    def cpu(x, kernel, g):
        before = [pad[0] for pad in padding]
        return (
            _image_gradient(x, kernel, g, stride, before),
            _kernel_gradient(x, kernel, g, stride, before),
        )

    def default(x, kernel, g):
        return jax.vjp(lambda x, k: _plain(x, k, stride, padding), x, kernel)[1](g)

    return jax.lax.platform_dependent(*kept, g, cpu=cpu, default=default)


convolve.defvjp(_forward, _backward)


def convolve_doubled(x, kernel):
    """A 3x3 convolution of images enlarged twice by repeating pixels, at 4/9 of the cost.

    An output pixel sees only 2x2 different input pixels: the rows (and columns) of the kernel that
    fall on the same pixel are added, in four ways for the four places of the output pixel.

    x: (n, h, w, c); kernel: (3, 3, c, features), cast to x's type; returns (n, 2h, 2w, features).
    """

    def halves(kernel):
        """(3, ...) weights to (2, 2, ...): place of the output pixel, place of the input pixel."""
        before, at, after = kernel
        return jnp.stack([jnp.stack([before, at + after]), jnp.stack([before + at, after])])

    kernels = halves(rearrange(halves(kernel), "p y x c f -> x p y c f"))  # (q, x, p, y, c, f)
    kernels = rearrange(kernels, "q x p y c f -> p q y x c f").astype(x.dtype)
    places = [
        convolve(x, kernels[p, q], 1, ((1 - p, p), (1 - q, q))) for p in range(2) for q in range(2)
    ]
    return rearrange(places, "(p q) n h w f -> n (h p) (w q) f", p=2)


def _image_gradient(x, kernel, g, stride: int, before):
    """g, spread out by the stride, with the kernel turned by half a circle."""
    padding = [
        (size - 1 - pad, length + pad - 1 - stride * (out - 1))
        for size, length, out, pad in _sizes(x, kernel, g, before)
    ]
    turned = rearrange(kernel[::-1, ::-1], "y x c f -> y x f c")
    return jax.lax.conv_general_dilated(
        g, turned, (1, 1), padding, (stride, stride), dimension_numbers=LAYOUT
    )


def _kernel_gradient(x, kernel, g, stride: int, before):
    """Channels in the role of images and images in that of channels, a few images at a time."""
    n, *out = g.shape[:3]
    most = min(n, max(1, PIXELS // (out[0] * out[1])))
    few = max(m for m in range(1, most + 1) if n % m == 0)
    padding = [
        (pad, size + stride * (out - 1) - length - pad)
        for size, length, out, pad in _sizes(x, kernel, g, before)
    ]

    def add(total, part):
        found = jax.lax.conv_general_dilated(
            rearrange(part[0], "n h w c -> c h w n"),
            rearrange(part[1], "n h w f -> h w n f"),
            *((1, 1), padding),
            rhs_dilation=(stride, stride),
            dimension_numbers=LAYOUT,
        )
        return total + rearrange(found, "c y x f -> y x c f"), None

    parts = [rearrange(a, "(k n) h w c -> k n h w c", n=few) for a in (x, g)]
    total = jnp.zeros(kernel.shape, jnp.float32)  # whatever the type of the images
    return jax.lax.scan(add, total, parts)[0].astype(kernel.dtype)


def _sizes(x, kernel, g, before):
    """Of rows, then columns: kernel, image, output, zeros before."""
    return zip(kernel.shape[:2], x.shape[1:3], g.shape[1:3], before, strict=True)
