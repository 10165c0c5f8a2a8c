"""Each metric over the frame index, as PNG files beside the results (needs matplotlib)."""

import importlib.util
from pathlib import Path

import numpy as np

from jaxvid.core.files import atomic_path
from jaxvid.metrics.summary import HIGHER_IS_BETTER, curves

UNITS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "lpips": "LPIPS"}


def available() -> bool:
    """Whether matplotlib is installed (`pip install 'jaxvid[plots]'`)."""
    return importlib.util.find_spec("matplotlib") is not None


def plot_all(results: dict[str, np.ndarray], observed: int, stem: Path) -> list[Path]:
    """Writes `<stem>_<metric>.png` for every per-frame metric; returns the files.

    observed: index of the first evaluated frame.
    """
    metrics = [name for name in HIGHER_IS_BETTER if name in results]
    return [plot(results[name], name, observed, stem) for name in metrics]


def plot(values: np.ndarray, metric: str, observed: int, stem: Path) -> Path:
    """values: (videos, samples, frames). Frames where a metric is infinite are left out."""
    # Imported here: the evaluation itself runs without matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    frames = np.arange(values.shape[2]) + observed
    for name, line in curves(values, metric).items():
        axes.plot(frames, line, label=f"{name} of {values.shape[1]} samples", linewidth=1.2)
    axes.set(xlabel="frame", ylabel=UNITS[metric], title=f"{values.shape[0]} videos")
    axes.grid(alpha=0.3)
    axes.legend()
    path = stem.with_name(f"{stem.name}_{metric}.png")
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(temporary)
    return path
