"""Runs the metrics over the samples of an evaluation folder, one or a few videos at a time."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np

from jaxvid.metrics import fvd, images, lpips, pixels, rooms
from jaxvid.metrics.frechet import frechet_distance
from jaxvid.metrics.samples import Samples

Track = Callable[[Sequence, str], Iterable]  # passes items through and shows progress


class Truth(Protocol):
    """Ground-truth videos by index (a `jaxvid.data` source)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...  # uint8 (t, h, w, 3)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the numbers depend on, besides the videos and the network weights."""

    observed: int = 36  # leading frames that psnr, ssim and lpips leave out
    ssim_data_range: float = images.PUBLISHED_SSIM_RANGE
    pixels: str = "paper"  # see jaxvid/metrics/pixels.py
    lpips_net: str = "alex"
    batch_size: int = 4  # videos per call of I3D
    fvd_window: int = fvd.WINDOW  # frames per call of I3D


def frame_metrics(
    samples: Samples,
    truth: Truth,
    metrics: Sequence[str],
    settings: Settings,
    lpips_params=None,
    track: Track = lambda items, title: items,
) -> dict[str, np.ndarray]:
    """psnr, ssim and lpips as float64 arrays (videos, samples, frames after the observed)."""
    shape = (len(samples.files), samples.per_video, samples.frames - settings.observed)
    results = {metric: np.zeros(shape) for metric in metrics}
    for row, video in enumerate(track(samples.videos, ", ".join(metrics))):
        clip = truth_clip(samples, truth, video)[settings.observed :]
        clip = truth_floats(settings.pixels)[clip]
        for column in range(samples.per_video):
            sample = pixels.unit(samples.load(video, column)[settings.observed :])
            for metric in metrics:
                values = frame_metric(metric, clip, sample, settings, lpips_params)
                results[metric][row, column] = values
    return results


def frame_metric(metric: str, truth, sample, settings: Settings, lpips_params) -> np.ndarray:
    """One metric of one video. truth, sample: (t, h, w, 3) float32 in [0, 1]; returns (t,)."""
    if metric == "psnr":
        return images.psnr(truth, sample)
    if metric == "ssim":
        return images.ssim(truth, sample, settings.ssim_data_range)
    net = settings.lpips_net
    return lpips.frame_distances(lpips_params, truth * 2 - 1, sample * 2 - 1, net)


def truth_floats(rule: str) -> np.ndarray:
    """Ground-truth pixel values in [0, 1] as the rule's evaluation has them: (256,) float32."""
    if rule == "exact":
        return pixels.unit(pixels.STORED)
    return (pixels.dataset_floats() + 1) / 2


def fvd_scores(
    samples: Samples,
    truth: Truth,
    i3d_params,
    settings: Settings,
    track: Track = lambda items, title: items,
) -> np.ndarray:
    """Fréchet video distance of sample k of every video to all ground truths: (samples,)."""
    truths, drawn = [], [[] for _ in range(samples.per_video)]
    size = settings.batch_size
    batches = [samples.videos[i : i + size] for i in range(0, len(samples.videos), size)]
    of_truth = pixels.truth_table(settings.pixels)
    of_sample = pixels.sample_table(settings.pixels)

    def features(clips):
        return fvd.batch_features(i3d_params, clips, size, settings.fvd_window)

    for videos in track(batches, "fvd"):
        truths.append(features([of_truth[truth_clip(samples, truth, v)] for v in videos]))
        for column, parts in enumerate(drawn):
            parts.append(features([of_sample[samples.load(v, column)] for v in videos]))
    real = np.concatenate(truths)
    return np.array([frechet_distance(np.concatenate(parts), real) for parts in drawn])


def room_scores(
    samples: Samples,
    truth: Truth,
    settings: Settings,
    track: Track = lambda items, title: items,
) -> np.ndarray:
    """Room accuracy of sample k of every video (see `rooms`): (samples,)."""
    of_truth = pixels.truth_table(settings.pixels)
    of_sample = pixels.sample_table(settings.pixels)
    truths, drawn = [], [[] for _ in range(samples.per_video)]
    for video in track(samples.videos, "rooms"):
        clip = truth_clip(samples, truth, video)[settings.observed :]
        truths.append(rooms.classify(of_truth[clip]))
        for column, walks in enumerate(drawn):
            sample = samples.load(video, column)[settings.observed :]
            walks.append(rooms.classify(of_sample[sample]))
    return np.array([rooms.room_accuracy(truths, walks) for walks in drawn])


def truth_clip(samples: Samples, truth: Truth, video: int) -> np.ndarray:
    """The first frames of a ground-truth video, uint8 (t, h, w, 3), in the samples' size.

    Raises:
      ValueError: there is no such video, it is too short, or its frames have another size.
    """
    if video >= len(truth):
        raise ValueError(f"there is no ground truth for video {video}: {len(truth)} videos")
    clip = truth[video]
    expected = (samples.frames, samples.height, samples.width, 3)
    if len(clip) < samples.frames or clip.shape[1:] != expected[1:]:
        raise ValueError(
            f"ground truth {video} is {clip.shape}, the samples need {expected}: "
            "set --dataset, the image size or --T"
        )
    return clip[: samples.frames]
