"""Pixel values as FDM converts them, and marks on frames for people who look at videos."""

import numpy as np

RED = (255, 0, 0)


def normalise(pixels: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [-1, 1], in the data sets' order of operations."""
    return 2 * (pixels.astype(np.float32) / np.float32(255)) - 1


def quantise(frames: np.ndarray, truncate: bool = False) -> np.ndarray:
    """Float in [-1, 1] to uint8, rounded. Upstream truncates: 63 of 256 values lose one."""
    scaled = (np.asarray(frames, np.float32) + 1) / 2 * 255
    return (scaled if truncate else np.clip(np.round(scaled), 0, 255)).astype(np.uint8)


def fvd_pixels(unit: np.ndarray) -> np.ndarray:
    """Float32 in [0, 1] to the uint8 that FDM's FVD is computed from: truncated."""
    return (np.asarray(unit, np.float32) * 255).astype(np.uint8)


def mark_observed(frames: np.ndarray, colour=RED) -> np.ndarray:
    """A copy of uint8 (..., h, w, 3) with a thin frame, one pixel inside the outermost."""
    marked = np.array(frames)
    for line in (1, -2):
        marked[..., line, :, :] = colour
        marked[..., :, line, :] = colour
    return marked


def end_frame(frames: np.ndarray) -> np.ndarray:
    """The checkerboard (1, h, w, 3) that FDM appends to a video (t, h, w, 3)."""
    end = np.zeros_like(frames[:1])
    end[..., ::2, 1::2, :] = 255
    return end
