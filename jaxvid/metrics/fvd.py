"""Features of the Fréchet Video Distance: legacy resize, I3D, mean of the logits over time.

Follows `frechet_video_distance.py` (Google Research) without TensorFlow. A clip goes through
the network in one piece, or, if it is long, in overlapping windows with the same result.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.metrics.i3d import CLASSES, I3D

SIDE = 224  # pixels, input of I3D
STRIDE = 8  # frames between two logits
SHORTEST = STRIDE + 1  # frames that give one logit
# Logit j sees the frames 8 j - REACH_BACK ... 8 j + REACH_AHEAD.
REACH_BACK, REACH_AHEAD = 47, 62
SMALLEST_WINDOW = 128  # frames; smaller ones would hardly advance
WINDOW = 512  # frames at once; about 3 GB per video at 224x224


def resize_legacy(frames, size: int = SIDE):
    """Bilinear resize as in TensorFlow 1 (`align_corners=False`, no half-pixel centres).

    Output pixel i reads the input at i * input / output: the neighbours below and above are
    blended linearly, and the last row and column are repeated. frames: (..., h, w, c).
    """
    frames = frames.astype(jnp.float32)
    low, high, weight = legacy_grid(frames.shape[-2], size)
    left, right = frames[..., low, :], frames[..., high, :]
    frames = left + (right - left) * weight[:, None]
    low, high, weight = legacy_grid(frames.shape[-3], size)
    top, bottom = frames[..., low, :, :], frames[..., high, :, :]
    return top + (bottom - top) * weight[:, None, None]


def legacy_grid(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper neighbour and the upper one's weight, for each of `size` positions."""
    # float32, as in TensorFlow: whether a position falls on a pixel depends on it.
    position = np.arange(size, dtype=np.float32) * (np.float32(length) / np.float32(size))
    low = np.floor(position).astype(np.int32)
    return low, np.minimum(low + 1, length - 1), position - low


@jax.jit
def clip_logits(params, clips):
    """clips: (b, t, h, w, 3) uint8; returns the I3D logits (b, s, 400)."""
    with jax.default_matmul_precision("highest"):  # no TF32: figures must not depend on the device
        return I3D().apply({"params": params}, resize_legacy(clips) * 2 / 255 - 1)


def features(params, clips: np.ndarray, window: int = WINDOW, logits=clip_logits) -> np.ndarray:
    """Mean logits of whole clips.

    Args:
      params: of I3D.
      clips: (b, t, h, w, 3) uint8, t >= 9.
      window: longest piece in frames that goes through the network at once. Longer clips are
        cut into overlapping windows, and only logits that no cut touches are used: the result
        is that of the whole clip.
      logits: maps (params, clips) to the logits; replaced in tests.
    Returns:
      (b, 400) float64.
    """
    frames = clips.shape[1]
    check_clip(frames, window)
    if frames <= window:
        return np.asarray(logits(params, clips), np.float64).mean(axis=1)
    length = window - (window - frames) % STRIDE  # keeps "SAME" paddings where they were
    total, count = np.zeros((len(clips), CLASSES)), 0
    while (piece := next_piece(frames, length, count)) is not None:
        start, first, last = piece
        values = np.asarray(logits(params, clips[:, start : start + length]), np.float64)
        total += values[:, first:last].sum(axis=1)
        count += last - first
    return total / count


def next_piece(frames: int, length: int, done: int) -> tuple[int, int, int] | None:
    """The window that yields logit `done` of a clip cut into windows of `length` frames.

    `frames - length` is a multiple of 8. Returns the window's first frame and the range of its
    logits to use (half-open, counted inside the window), or None when all logits are done.
    """
    if done >= -(-frames // STRIDE) - 1:
        return None
    lost = -(-REACH_BACK // STRIDE)  # logits at a left cut that would miss frames
    start = min(max(done - lost, 0) * STRIDE, frames - length)
    at_end = start + length == frames
    whole = -(-length // STRIDE) - 1
    usable = whole if at_end else (length - 1 - REACH_AHEAD) // STRIDE + 1
    return start, done - start // STRIDE, usable


def batch_features(
    params, clips: list[np.ndarray], batch_size: int, window: int = WINDOW
) -> np.ndarray:
    """Features of up to `batch_size` clips, padded with black clips to one compiled shape."""
    stacked = np.stack(clips)
    missing = batch_size - len(clips)
    stacked = np.pad(stacked, ((0, missing), (0, 0), (0, 0), (0, 0), (0, 0)))
    return features(params, stacked, window)[: len(clips)]


def check_clip(frames: int, window: int) -> None:
    """Raises ValueError for clips or windows too short for I3D."""
    if frames < SHORTEST:
        raise ValueError(f"FVD needs clips of {SHORTEST} frames or more, got {frames}")
    if window < SMALLEST_WINDOW:
        raise ValueError(f"fvd window={window} is too short: use {SMALLEST_WINDOW} frames or more")
