"""Many videos, samples and frames in a few numbers, as in the notebooks of the FDM paper."""

import numpy as np

HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "lpips": False}


def frame_summary(values: np.ndarray, metric: str) -> dict[str, float]:
    """Means of a per-frame metric. values: (videos, samples, frames).

    best: the best sample at each frame (what the paper's tables print); best_avg: the sample
    with the best mean over time; mean: all samples; random: the first sample.
    """
    return {
        "best": float(best_of_samples(values, metric).mean()),
        "best_avg": float(best_of_samples(values.mean(axis=2), metric).mean()),
        "mean": float(values.mean()),
        "random": float(values[:, 0].mean()),
    }


def best_of_samples(values: np.ndarray, metric: str) -> np.ndarray:
    """The extremum over axis 1, in the metric's good direction."""
    return values.max(axis=1) if HIGHER_IS_BETTER[metric] else values.min(axis=1)


def curves(values: np.ndarray, metric: str) -> dict[str, list[float]]:
    """Means over videos at each frame, of the best sample and of all samples."""
    return {
        "best": best_of_samples(values, metric).mean(axis=0).tolist(),
        "mean": values.mean(axis=(0, 1)).tolist(),
    }


def mean_and_error(values: np.ndarray) -> dict[str, float | None]:
    """Mean and standard error std / sqrt(n - 1), the +- of the paper; None for one value."""
    values = np.asarray(values, np.float64)
    error = float(values.std() / np.sqrt(len(values) - 1)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "error": error}


def summarise(results: dict[str, np.ndarray]) -> dict:
    """The summary of every metric present (`elbo`: bits per dimension, one per video)."""
    summary = {}
    for metric, values in results.items():
        if metric in HIGHER_IS_BETTER:
            summary[metric] = frame_summary(values, metric)
        else:
            summary[metric] = mean_and_error(values)
    return summary
