"""Room accuracy on GQN-Mazes: does a predicted walk enter and leave hallways as the true one?

`scripts/video_eval_room_seq_acc.py` of the FDM paper. Hallways have green walls, so a frame is
in a hallway from when many pixels are green until few are. The HSV values and the erosion are
those of OpenCV for 8-bit images.
"""

from typing import NamedTuple

import numpy as np

ROWS = slice(14, 45)  # of 64: the strip where walls are
HUE = (50, 70)  # green, in OpenCV's half degrees
LEAST_SATURATION = LEAST_VALUE = 25
ENTER_ABOVE, LEAVE_AT = 1000, 500  # green pixels, after smoothing
TAPS = np.array([1, 2, 3, 4, 5, 4, 3, 2, 1]) / 5
SHIFT = 12  # bits of OpenCV's fixed-point division tables


class Walk(NamedTuple):
    """What a walk does; each video belongs to exactly one of the three classes."""

    stays_in_room: bool
    stays_in_hallway: bool  # enters one and does not leave it again
    recoveries: int  # times it goes from a room through a hallway to a room


def room_accuracy(truths: list[Walk], predictions: list[Walk]) -> float:
    """Share of the videos whose prediction is positive in the class of the ground truth."""
    hits = [
        any(bool(t) and bool(p) for t, p in zip(truth, prediction, strict=True))
        for truth, prediction in zip(truths, predictions, strict=True)
    ]
    return float(np.mean(hits))


def classify(frames: np.ndarray) -> Walk:
    """frames: (t, h, w, 3) uint8 of a walk, without the observed frames."""
    counts = smooth(np.array([green_pixels(frame[ROWS]) for frame in frames]))
    inside, entered, left = False, 0, 0
    for count in counts:
        if inside and count <= LEAVE_AT:
            inside, left = False, left + 1
        elif not inside and count > ENTER_ABOVE:
            inside, entered = True, entered + 1
    return Walk(entered == 0, entered == 1 and left == 0, left)


def green_pixels(image: np.ndarray) -> int:
    """Green pixels whose left, upper and upper left neighbours are green, too."""
    hue, saturation, value = hsv(image)
    green = (hue >= HUE[0]) & (hue <= HUE[1])
    green &= (saturation >= LEAST_SATURATION) & (value >= LEAST_VALUE)
    padded = np.pad(green, ((1, 0), (1, 0)), constant_values=True)  # borders do not erode
    kept = padded[1:, 1:] & padded[:-1, 1:] & padded[1:, :-1] & padded[:-1, :-1]
    return int(kept.sum())


def hsv(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue (0..179), saturation and value (0..255) of a uint8 RGB image, rounded as in OpenCV."""
    red, green, blue = np.moveaxis(image.astype(np.int64), -1, 0)
    value = image.max(axis=-1).astype(np.int64)
    spread = value - image.min(axis=-1)
    sector = np.where(
        value == red,
        green - blue,
        np.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    hue = fixed_point(sector, 180 / 6, spread)
    return np.where(hue < 0, hue + 180, hue), fixed_point(spread, 255, value), value


def fixed_point(numerator, factor: float, denominator):
    """factor * numerator / denominator, rounded by way of a table with 12 bits."""
    divisors = np.maximum(np.arange(256), 1)
    table = np.rint(factor * 2**SHIFT / divisors).astype(np.int64)
    table[0] = 0
    return (numerator * table[denominator] + 2 ** (SHIFT - 1)) >> SHIFT


def smooth(counts: np.ndarray) -> np.ndarray:
    """Triangular mean over 9 frames, renormalised at the ends, cut to integers as upstream."""
    reach = len(TAPS) // 2
    padded = np.pad(counts, reach)
    inside = np.pad(np.ones(len(counts), bool), reach)
    windows = [slice(i, i + len(TAPS)) for i in range(len(counts))]
    # Sums in upstream's order, since a count can lie exactly on an integer before the cut.
    means = [np.dot(padded[w], TAPS) / np.sum(TAPS[inside[w]]) for w in windows]
    return np.array(means).astype(np.int64)


def check_size(height: int, width: int) -> None:
    """Raises ValueError unless frames have the size the thresholds are made for."""
    if (height, width) != (64, 64):
        raise ValueError(f"rooms counts pixels of 64x64 GQN-Mazes frames, got {height}x{width}")
