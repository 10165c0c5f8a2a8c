"""LPIPS v0.1 (Zhang et al., arXiv:1801.03924) on AlexNet and VGG16 features, and its embedding.

The distance is a sum over five layers of the mean over pixels of sum_c w_c (a_c - b_c)^2, where
a and b are features of unit length at each pixel. Scaled by sqrt(w_c / pixels) they form an
embedding whose squared Euclidean distance is LPIPS; FDM's adaptive schemes compare frames by it.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

# Normalisation of inputs in [-1, 1], per RGB channel.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
FRAMES_PER_CALL = 32


class Conv(NamedTuple):
    """A convolution followed by a ReLU; `index` is its place in torchvision's `features`."""

    index: int
    channels: int
    kernel: int = 3
    stride: int = 1
    pad: int = 1


class Pool(NamedTuple):
    """A max-pooling without padding, stride 2."""

    window: int


# Five stages each; the features of a stage are taken after its last ReLU.
STAGES = {
    "alex": (
        (Conv(0, 64, 11, 4, 2),),
        (Pool(3), Conv(3, 192, 5, 1, 2)),
        (Pool(3), Conv(6, 384)),
        (Conv(8, 256),),
        (Conv(10, 256),),
    ),
    "vgg": (
        (Conv(0, 64), Conv(2, 64)),
        (Pool(2), Conv(5, 128), Conv(7, 128)),
        (Pool(2), Conv(10, 256), Conv(12, 256), Conv(14, 256)),
        (Pool(2), Conv(17, 512), Conv(19, 512), Conv(21, 512)),
        (Pool(2), Conv(24, 512), Conv(26, 512), Conv(28, 512)),
    ),
}
SMALLEST = {"alex": 31, "vgg": 16}  # pixels a side that leave one pixel in the last stage


class Layer(NamedTuple):
    features: jax.Array  # (b, h, w, c) of unit length over c
    weight: jax.Array  # (c,) non-negative


class Lpips(nn.Module):
    """Features of a network and the linear weights of LPIPS that go with them."""

    net: str = "alex"  # or "vgg"

    @nn.compact
    def __call__(self, images) -> list[Layer]:
        """images: (b, h, w, 3) in [-1, 1]."""
        x = (images - jnp.array(SHIFT)) / jnp.array(SCALE)
        layers = []
        for number, stage in enumerate(STAGES[self.net]):
            for step in stage:
                x = max_pool(x, step.window) if isinstance(step, Pool) else conv_relu(x, step)
            head = self.param(f"head_{number}", nn.initializers.uniform(1), (1, 1, x.shape[-1], 1))
            length = jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True))
            layers.append(Layer(x / (length + 1e-10), head.reshape(-1)))
        return layers


def conv_relu(x, step: Conv):
    side = (step.kernel, step.kernel)
    conv = nn.Conv(
        step.channels, side, step.stride, padding=step.pad, name=f"features_{step.index}"
    )
    return nn.relu(conv(x))


def max_pool(x, window: int):
    return nn.max_pool(x, (window, window), strides=(2, 2))


def layers_of(params, images, net: str) -> list[Layer]:
    """The five layers in full float32, also on devices that would round products to TF32."""
    with jax.default_matmul_precision("highest"):
        return Lpips(net).apply({"params": params}, images)


@functools.partial(jax.jit, static_argnames="net")
def distance(params, a, b, net: str = "alex"):
    """LPIPS of image pairs. a, b: (b, h, w, 3) in [-1, 1]; returns (b,)."""
    total = 0.0
    for layer in layers_of(params, jnp.concatenate([a, b]), net):
        of_a, of_b = jnp.split(layer.features, 2)
        total += jnp.mean(jnp.square(of_a - of_b) @ layer.weight, axis=(1, 2))
    return total


@functools.partial(jax.jit, static_argnames="net")
def embed(params, images, net: str = "alex"):
    """Vectors whose squared distances are LPIPS; upstream's order (layer, channel, row, column).

    images: (b, h, w, 3) in [-1, 1]; returns (b, c) float32 (31872 wide for AlexNet at 64x64).
    """
    parts = []
    for features, weight in layers_of(params, images, net):
        pixels = features.shape[1] * features.shape[2]
        scaled = features * jnp.sqrt(weight / pixels)
        parts.append(rearrange(scaled, "b h w c -> b (c h w)"))
    return jnp.concatenate(parts, axis=-1)


def frame_distances(params, a: np.ndarray, b: np.ndarray, net: str = "alex") -> np.ndarray:
    """LPIPS of each pair of frames of two videos. a, b: (t, h, w, 3) in [-1, 1]; returns (t,)."""
    check_size(a.shape, net)
    return over_frames(functools.partial(distance, params, net=net), a, b)


def embedder(params, net: str = "alex") -> Callable[[np.ndarray], np.ndarray]:
    """The frame embedding of FDM's adaptive schemes: (t, h, w, 3) in [-1, 1] -> (t, c)."""

    def embed_frames(frames: np.ndarray) -> np.ndarray:
        check_size(frames.shape, net)
        return over_frames(functools.partial(embed, params, net=net), frames)

    return embed_frames


def over_frames(function, *videos: np.ndarray) -> np.ndarray:
    """Applies a batched function to all frames, at most FRAMES_PER_CALL at a time.

    Calls are padded to a power of two, so that few frame counts are compiled.
    """
    frames = len(videos[0])
    size = min(FRAMES_PER_CALL, 1 << (frames - 1).bit_length())
    results = []
    for start in range(0, frames, size):
        parts = [np.asarray(video[start : start + size], np.float32) for video in videos]
        missing = size - len(parts[0])
        parts = [np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0))) for part in parts]
        results.append(np.asarray(function(*parts))[: size - missing])
    return np.concatenate(results)


def check_size(shape: tuple[int, ...], net: str) -> None:
    """Raises ValueError for frames too small for the network's pooling."""
    if net not in STAGES:
        raise ValueError(f"lpips net={net!r} is unknown: use one of {', '.join(STAGES)}")
    if min(shape[1:3]) < SMALLEST[net]:
        raise ValueError(
            f"LPIPS on {net} needs frames of {SMALLEST[net]}x{SMALLEST[net]} pixels or more, "
            f"got {shape[1]}x{shape[2]}"
        )
