"""PSNR and SSIM of video frames, channel by channel as FDM's evaluation computes them.

Both treat each colour channel as a grey image and average the three results
(scikit-image's per-image functions, called by `scripts/video_eval.py` of the paper's code).
"""

import numpy as np
from scipy.ndimage import uniform_filter

SSIM_WINDOW = 7  # side of the uniform window, pixels
PUBLISHED_SSIM_RANGE = 2.0  # what scikit-image < 0.20 assumed for float images; see `ssim`


def psnr(a: np.ndarray, b: np.ndarray, data_range: float = 1.0) -> np.ndarray:
    """Peak signal-to-noise ratio in dB.

    a, b: (t, h, w, c) with values in [0, 1]; returns (t,) float64, the mean over channels.
    A channel without any error gives inf, and so does its frame.
    """
    check_pair(a, b)
    error = np.mean(np.square(a.astype(np.float64) - b), axis=(1, 2))
    with np.errstate(divide="ignore"):
        return np.mean(10 * np.log10(data_range**2 / error), axis=-1)


def ssim(a: np.ndarray, b: np.ndarray, data_range: float = PUBLISHED_SSIM_RANGE) -> np.ndarray:
    """Structural similarity with a 7x7 uniform window and sample covariances (N - 1).

    The default data range is 2 although the values lie in [0, 1], because the published
    figures were made with it; 1 is the conventional value and gives lower figures.

    a, b: (t, h, w, c) with values in [0, 1]; returns (t,) float64, the mean over channels.
    The map is averaged without the border of 3 pixels, where the window leaves the image.
    """
    check_pair(a, b)
    if min(a.shape[1:3]) < SSIM_WINDOW:
        height, width = a.shape[1:3]
        raise ValueError(f"SSIM needs frames of at least 7x7 pixels, got {height}x{width}")
    a, b = a.astype(np.float64), b.astype(np.float64)
    mean_a, mean_b = window_mean(a), window_mean(b)
    count = SSIM_WINDOW**2
    sample = count / (count - 1)
    var_a = sample * (window_mean(a * a) - mean_a**2)
    var_b = sample * (window_mean(b * b) - mean_b**2)
    cov = sample * (window_mean(a * b) - mean_a * mean_b)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * cov + c2) / (var_a + var_b + c2)
    return np.mean(luminance * structure, axis=(1, 2, 3))


def window_mean(x: np.ndarray) -> np.ndarray:
    """Means over all windows that lie inside the image: (t, h, w, c) -> (t, h - 6, w - 6, c)."""
    border = SSIM_WINDOW // 2
    filtered = uniform_filter(x, size=(1, SSIM_WINDOW, SSIM_WINDOW, 1))
    return filtered[:, border:-border, border:-border]


def check_pair(a: np.ndarray, b: np.ndarray) -> None:
    """Raises ValueError unless a and b are videos (t, h, w, c) of the same shape."""
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"expected two videos (t, h, w, c) of one shape, got {a.shape}, {b.shape}")
