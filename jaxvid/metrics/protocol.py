"""How each number was measured, in words and settings that two results can be compared by."""

from jaxvid.metrics.measure import Settings
from jaxvid.metrics.samples import Samples


def describe(
    metric: str, samples: Samples, dataset: str, settings: Settings, weights: str | None = None
) -> dict:
    """The protocol of one metric. dataset: name and partition; weights: hash of the network's."""
    common = {
        "dataset": dataset,
        "videos": samples.videos,
        "samples": samples.per_video,
        "sample_order": "by sample index (upstream: order of the directory listing)",
        "frames": samples.frames,
        "resolution": [samples.height, samples.width],
        "pixels": settings.pixels,
    }
    return common | SPECIFIC[metric](settings, weights)


def psnr(settings: Settings, weights: None) -> dict:
    return {
        "first_frame": settings.observed,
        "channels": "each as a grey image, then averaged",
        "data_range": 1.0,
    }


def ssim(settings: Settings, weights: None) -> dict:
    return {
        "first_frame": settings.observed,
        "channels": "each as a grey image, then averaged",
        "data_range": settings.ssim_data_range,
        "window": "7x7 uniform, sample covariance, K1 0.01, K2 0.03, border of 3 left out",
    }


def lpips(settings: Settings, weights: str) -> dict:
    return {
        "first_frame": settings.observed,
        "network": f"{settings.lpips_net} v0.1, inputs in [-1, 1]",
        "weights": weights,
    }


def fvd(settings: Settings, weights: str) -> dict:
    return {
        "first_frame": 0,
        "clip": "all frames, observed ones included, in one piece",
        "resize": "224x224 bilinear of TensorFlow 1: no half-pixel centres, corners not aligned",
        "input": "2 x / 255 - 1",
        "features": "400 Kinetics logits of I3D averaged over time, no softmax",
        "covariance": "N - 1; trace of the root by singular values, nothing added to diagonals",
        "pairs": "sample k of every video against all ground truths, one value per k",
        "weights": weights,
    }


def rooms(settings: Settings, weights: None) -> dict:
    return {
        "first_frame": settings.observed,
        "hallway": "from above 1000 green pixels until 500 or fewer, smoothed over 9 frames",
        "classes": "stays in the room / in a hallway / comes back from a hallway",
    }


SPECIFIC = {"psnr": psnr, "ssim": ssim, "lpips": lpips, "fvd": fvd, "rooms": rooms}
