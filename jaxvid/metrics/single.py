"""One number for one sample index: `scripts/video_fvd.py` of the refactored FDM repository."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxvid.core.files import atomic_path
from jaxvid.metrics import weights
from jaxvid.metrics.evaluate import EvaluateConfig
from jaxvid.metrics.measure import Truth, fvd_scores
from jaxvid.metrics.samples import Samples, checked, list_samples


def video_fvd(
    config: EvaluateConfig,
    dataset: str,
    num_videos: int,
    sample_idx: int,
    open_truth: Callable[[Samples], Truth],
) -> float:
    """FVD of sample `sample_idx` of the videos 0 ... num_videos - 1.

    Writes `fvd-<num_videos>-<sample_idx>.txt`, or reads it if it is there. Pixels are rounded
    as in that script ("refactored") whatever `config.pixels` says; the number of frames is
    that of the samples, where upstream takes the one of training.
    """
    path = Path(config.eval_dir).expanduser() / f"fvd-{num_videos}-{sample_idx}.txt"
    if path.is_file():
        print(f"{path} is there already")
        return float(np.loadtxt(path))
    samples = one_sample(path.parent, num_videos, sample_idx, config.T)
    params, _ = weights.load(config.i3d_weights, "i3d")
    settings = dataclasses.replace(config.settings(dataset), pixels="refactored")
    score = fvd_scores(samples, open_truth(samples), params, settings)
    with atomic_path(path) as temporary:
        np.savetxt(temporary, score)
    return float(score[0])


def one_sample(eval_dir: Path, num_videos: int, sample_idx: int, frames: int | None) -> Samples:
    """One sample of each of the first videos; raises ValueError if one is missing."""
    if num_videos < 1:
        raise ValueError(f"num_videos={num_videos} must be 1 or more")
    listed = list_samples(eval_dir)
    files = {}
    for video in range(num_videos):
        ending = f"-{sample_idx}.npy"
        found = [path for path in listed.get(video, ()) if path.name.endswith(ending)]
        if not found:
            raise ValueError(f"video {video} has no sample {sample_idx} in {eval_dir}/samples")
        files[video] = (found[0],)
    return checked(eval_dir, files, frames)
