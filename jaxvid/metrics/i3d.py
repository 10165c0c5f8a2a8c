"""Inception-v1 I3D (Carreira & Zisserman, arXiv:1705.07750), the feature network of FVD.

Inference only: batch normalisation uses its stored statistics, which are ordinary parameters.
Paddings follow TensorFlow's "SAME" rule, as in the original network.
"""

import flax.linen as nn
import jax.numpy as jnp

CLASSES = 400  # Kinetics-400
BATCH_NORM_EPSILON = 1e-3

# Output channels of the branches: 1x1, (1x1, 3x3), (1x1, 3x3), pool + 1x1.
MIXED = {
    "Mixed_3b": (64, (96, 128), (16, 32), 32),
    "Mixed_3c": (128, (128, 192), (32, 96), 64),
    "Mixed_4b": (192, (96, 208), (16, 48), 64),
    "Mixed_4c": (160, (112, 224), (24, 64), 64),
    "Mixed_4d": (128, (128, 256), (24, 64), 64),
    "Mixed_4e": (112, (144, 288), (32, 64), 64),
    "Mixed_4f": (256, (160, 320), (32, 128), 128),
    "Mixed_5b": (256, (160, 320), (32, 128), 128),
    "Mixed_5c": (384, (192, 384), (48, 128), 128),
}


class Unit(nn.Module):
    """Convolution without bias, batch normalisation with stored statistics, ReLU."""

    channels: int
    kernel: int = 1
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        """x: (b, t, h, w, c)."""
        conv = nn.Conv(self.channels, (self.kernel,) * 3, self.stride, use_bias=False, name="conv")
        x = conv(x)
        zeros, ones = nn.initializers.zeros_init(), nn.initializers.ones_init()
        shape = (self.channels,)
        scale, bias = self.param("scale", ones, shape), self.param("bias", zeros, shape)
        mean, var = self.param("mean", zeros, shape), self.param("var", ones, shape)
        x = (x - mean) / jnp.sqrt(var + BATCH_NORM_EPSILON) * scale + bias
        return nn.relu(x)


class Mixed(nn.Module):
    """Inception block: four branches, joined over channels."""

    widths: tuple

    @nn.compact
    def __call__(self, x):
        """x: (b, t, h, w, c)."""
        w0, (w1a, w1b), (w2a, w2b), w3 = self.widths
        b0 = Unit(w0, name="b0")(x)
        b1 = Unit(w1b, 3, name="b1b")(Unit(w1a, name="b1a")(x))
        b2 = Unit(w2b, 3, name="b2b")(Unit(w2a, name="b2a")(x))
        b3 = Unit(w3, name="b3b")(pool(x, (3, 3, 3), (1, 1, 1)))
        return jnp.concatenate([b0, b1, b2, b3], axis=-1)


class I3D(nn.Module):
    """Kinetics logits of a clip, one vector per 8 frames and one less than that."""

    classes: int = CLASSES

    @nn.compact
    def __call__(self, videos):
        """videos: (b, t, h, w, 3) in [-1, 1], 224x224, t >= 9; returns (b, ceil(t / 8) - 1, c).

        The published network averages over windows of 7x7 before the logits, at 224x224 the
        whole image; here it is always the whole image.
        """
        x = Unit(64, 7, 2, name="Conv3d_1a_7x7")(videos)
        x = pool(x, (1, 3, 3), (1, 2, 2))
        x = Unit(64, name="Conv3d_2b_1x1")(x)
        x = Unit(192, 3, name="Conv3d_2c_3x3")(x)
        x = pool(x, (1, 3, 3), (1, 2, 2))
        x = self.mixed(x, "Mixed_3b", "Mixed_3c")
        x = pool(x, (3, 3, 3), (2, 2, 2))
        x = self.mixed(x, "Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f")
        x = pool(x, (2, 2, 2), (2, 2, 2))
        x = self.mixed(x, "Mixed_5b", "Mixed_5c")
        x = jnp.mean(x, axis=(2, 3), keepdims=True)
        x = (x[:, 1:] + x[:, :-1]) / 2
        x = nn.Conv(self.classes, (1, 1, 1), name="logits")(x)
        return x[:, :, 0, 0]

    def mixed(self, x, *names):
        for name in names:
            x = Mixed(MIXED[name], name=name)(x)
        return x


def pool(x, window, stride):
    return nn.max_pool(x, window, stride, padding="SAME")
