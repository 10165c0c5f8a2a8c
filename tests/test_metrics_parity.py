"""Our metrics against PyTorch, scikit-image and scipy (pip install 'jaxvid[parity]')."""

import numpy as np
import pytest
from metric_weights import random_params

from jaxvid.metrics import frechet, fvd, images, keys, lpips
from jaxvid.metrics.i3d import MIXED

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
F = torch.nn.functional

# torchvision's `features`: channels of a convolution, or "M" for a max-pooling.
VGG16 = [64, 64, "M", 128, 128, "M", *[256] * 3, "M", *[512] * 3, "M", *[512] * 3]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def alexnet():
    conv, relu = torch.nn.Conv2d, torch.nn.ReLU
    return torch.nn.Sequential(
        *(conv(3, 64, 11, 4, 2), relu(), torch.nn.MaxPool2d(3, 2)),
        *(conv(64, 192, 5, padding=2), relu(), torch.nn.MaxPool2d(3, 2)),
        *(conv(192, 384, 3, padding=1), relu()),
        *(conv(384, 256, 3, padding=1), relu()),
        *(conv(256, 256, 3, padding=1), relu()),
    )


def vgg16():
    layers, width = [], 3
    for channels in VGG16:
        if channels == "M":
            layers.append(torch.nn.MaxPool2d(2, 2))
        else:
            layers += [torch.nn.Conv2d(width, channels, 3, padding=1), torch.nn.ReLU()]
            width = channels
    return torch.nn.Sequential(*layers)


def torch_lpips(trunk, taps, heads, a, b):
    """LPIPS as its paper and package define it, on NCHW tensors in [-1, 1]."""
    shift = torch.tensor([-0.030, -0.088, -0.188])[None, :, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[None, :, None, None]
    a, b, total = (a - shift) / scale, (b - shift) / scale, 0
    for index, layer in enumerate(trunk):
        a, b = layer(a), layer(b)
        if index in taps:
            unit = [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (a, b)]
            weighted = F.conv2d((unit[0] - unit[1]) ** 2, heads[taps.index(index)])
            total = total + weighted.mean(dim=(1, 2, 3))
    return total


@pytest.mark.parametrize(
    "net, trunk, taps",
    [("alex", alexnet, [1, 4, 7, 9, 11]), ("vgg", vgg16, [3, 8, 15, 22, 29])],
)
@torch.no_grad()
def test_lpips_equals_torch(net, trunk, taps, rng):
    params = random_params(keys.lpips_shapes(net))
    state = keys.lpips_to_theirs(params, net)
    state = {name: torch.tensor(np.ascontiguousarray(a)) for name, a in state.items()}
    model = trunk()
    model.load_state_dict(
        {n.split(".", 2)[2]: tensor for n, tensor in state.items() if n.startswith("net.")}
    )
    heads = [state[f"lin{i}.model.1.weight"] for i in range(5)]
    a, b = rng.uniform(-1, 1, (2, 3, 64, 80, 3)).astype(np.float32)
    theirs = torch_lpips(model, taps, heads, *(torch.tensor(x).movedim(3, 1) for x in (a, b)))
    ours = lpips.frame_distances(params, a, b, net)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5)  # float32


def same(x, kernel, stride):
    """Zero padding of TensorFlow's "SAME" rule, on (b, c, t, h, w)."""
    pads = []
    for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


class TorchI3D:
    """Inception-v1 I3D on a state dict in the layout of piergiaj/pytorch-i3d."""

    def __init__(self, state):
        self.state = state

    def unit(self, x, name, stride=1):
        weight, stride = self.state[f"{name}.conv3d.weight"], (stride,) * 3
        x = F.conv3d(same(x, weight.shape[2:], stride), weight, stride=stride)
        norm = [self.state[f"{name}.bn.{part}"] for part in
                ("running_mean", "running_var", "weight", "bias")]  # fmt: skip
        return F.relu(F.batch_norm(x, *norm, training=False, eps=1e-3))

    def mixed(self, x, name):
        one = self.unit(x, f"{name}.b0")
        two = self.unit(self.unit(x, f"{name}.b1a"), f"{name}.b1b")
        three = self.unit(self.unit(x, f"{name}.b2a"), f"{name}.b2b")
        four = self.unit(self.pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b")
        return torch.cat([one, two, three, four], dim=1)

    def pool(self, x, kernel, stride):
        return F.max_pool3d(same(x, kernel, stride), kernel, stride)

    def __call__(self, x):
        """(b, 3, t, 224, 224) -> logits (b, s, 400)."""
        x = self.pool(self.unit(x, "Conv3d_1a_7x7", 2), (1, 3, 3), (1, 2, 2))
        x = self.unit(self.unit(x, "Conv3d_2b_1x1"), "Conv3d_2c_3x3")
        x = self.pool(x, (1, 3, 3), (1, 2, 2))
        for name in MIXED:
            if name == "Mixed_4b":
                x = self.pool(x, (3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                x = self.pool(x, (2, 2, 2), (2, 2, 2))
            x = self.mixed(x, name)
        x = F.avg_pool3d(x, (2, 7, 7), stride=1)
        weight, bias = self.state["logits.conv3d.weight"], self.state["logits.conv3d.bias"]
        return F.conv3d(x, weight, bias)[:, :, :, 0, 0].movedim(1, 2)


@pytest.mark.parametrize("frames", [17, 20])
@torch.no_grad()
def test_i3d_equals_torch(frames, rng):
    params = random_params(keys.i3d_shapes())
    state = keys.i3d_to_theirs(params)
    model = TorchI3D({n: torch.tensor(np.ascontiguousarray(a)) for n, a in state.items()})
    clips = rng.integers(0, 256, (1, frames, 224, 224, 3), np.uint8)
    theirs = model(torch.tensor(clips).movedim(4, 1).float() * 2 / 255 - 1).numpy()
    ours = np.asarray(fvd.clip_logits(params, clips))  # the resize to the same size does nothing
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())  # float32


def test_psnr_and_ssim_equal_skimage(rng):
    metrics = pytest.importorskip("skimage.metrics")
    a, b = rng.random((2, 3, 20, 24, 3)).astype(np.float32)
    for data_range in (1.0, 2.0):
        psnr, ssim = (
            [np.mean([f(x[..., c], y[..., c], data_range=data_range) for c in range(3)])
             for x, y in zip(a, b, strict=True)]
            for f in (metrics.peak_signal_noise_ratio, metrics.structural_similarity)
        )  # fmt: skip
        np.testing.assert_allclose(images.psnr(a, b, data_range), psnr, rtol=1e-6)
        np.testing.assert_allclose(images.ssim(a, b, data_range), ssim, rtol=1e-5)  # float32


@pytest.mark.parametrize("count, width", [(60, 8), (10, 16), (3, 5)])
def test_frechet_distance_equals_scipy(count, width, rng):
    linalg = pytest.importorskip("scipy.linalg")
    a = rng.normal(size=(count, width))
    b = rng.normal(size=(count + 2, width)) * 1.5 + 0.5
    covs = [np.cov(x, rowvar=False) + 1e-12 * np.eye(width) for x in (a, b)]
    root = np.trace(linalg.sqrtm(covs[0] @ covs[1])).real
    shift = np.sum((a.mean(0) - b.mean(0)) ** 2)
    expected = shift + np.trace(covs[0]) + np.trace(covs[1]) - 2 * root
    # scipy's root of a singular matrix is good to about the root of float64's precision.
    np.testing.assert_allclose(frechet.frechet_distance(a, b), expected, atol=1e-4)
