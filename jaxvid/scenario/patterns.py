"""Lane lines and other polylines as short straight segments: subdivision, dashes, double lines.

Lengths and points are float32, as in cosmos-transfer2.5 (`world_scenario/utils/laneline_utils.py`).
Segments are (n, 2, 3) arrays in the order of the line.
"""

import numpy as np

LONG_DASH, LONG_PERIOD = 3.0, 12.0  # metres
SHORT_DASH, SHORT_PERIOD = 1.5, 3.0
DOTTED_ON, DOTTED_OFF = 18, 54  # segments of 0.05 m: 3 and 9 feet
DOT_EVERY = 3  # segments
DOTTED_EVERY = 10
DOUBLE_OFFSET = 0.1  # metres, of each half of a double line


def subdivide(points, step: float) -> np.ndarray:
    """points: (n, 3) float32; step: metres. Returns (m, 3) float32 points, the joints once.

    A stretch of length L between two points becomes max(trunc(L / step) - 1, 1) equal parts,
    which are therefore a little longer than `step`.
    """
    points = np.asarray(points, np.float32)
    if len(points) < 2:
        return points
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    counts = np.maximum(np.trunc(lengths / np.float32(step)).astype(int), 2)
    pieces = [
        np.linspace(a, b, count)[first:]
        for a, b, count, first in zip(
            points[:-1], points[1:], counts, [0] + [1] * (len(counts) - 1), strict=True
        )
    ]
    return np.concatenate(pieces).astype(np.float32)


def as_segments(points) -> np.ndarray:
    """(n, 3) points of a polyline to (n - 1, 2, 3) segments."""
    return np.stack([points[:-1], points[1:]], axis=1)


def apply_pattern(segments, pattern: str) -> np.ndarray:
    """Leaves out what lies in the gaps of "solid", "long_dashed", "short_dashed", ... lines."""
    return PATTERNS[pattern](segments)


def double(segments, ground: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Both halves of a double line, left and right of it.

    ground: the two axes of world coordinates that span the ground, such that a quarter turn to the
      left takes the first to the second in FLU. Each segment is moved on its own.
    """
    first, second = ground
    steps = segments[:, 1] - segments[:, 0]
    lengths = np.linalg.norm(steps, axis=1, keepdims=True)
    directions = steps / np.where(lengths == 0, 1, lengths)
    offsets = np.zeros_like(directions)
    offsets[:, first], offsets[:, second] = -directions[:, second], directions[:, first]
    offsets *= DOUBLE_OFFSET
    return segments + offsets[:, None], segments - offsets[:, None]


def _arc_lengths(segments) -> tuple[np.ndarray, np.ndarray]:
    """Distance along the line, in metres, where each segment starts and ends."""
    lengths = np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)
    ends = np.cumsum(lengths, dtype=np.float32)
    return np.concatenate([np.zeros(1, np.float32), ends[:-1]]), ends


def _solid(segments):
    return segments


def _long_dashed(segments):
    """3 m on, 9 m off; segments are cut at the ends of dashes."""
    start, end = _arc_lengths(segments)
    dash = LONG_PERIOD * np.floor(end / LONG_PERIOD)  # start of the last dash that can be touched
    dash = np.where(start < dash - LONG_PERIOD + LONG_DASH, dash - LONG_PERIOD, dash)
    low, high = np.maximum(start, dash), np.minimum(end, dash + LONG_DASH)
    kept = high > low
    shares = np.stack([low - start, high - start], axis=1)[kept] / (end - start)[kept, None]
    first, last = segments[kept, :1], segments[kept, 1:]
    return (first + (last - first) * shares[:, :, None]).astype(np.float32)


def _short_dashed(segments):
    """1.5 m on, 1.5 m off; segments that cross the end of a dash are left out."""
    start, end = _arc_lengths(segments)
    dash = SHORT_PERIOD * np.floor(start / SHORT_PERIOD)
    return segments[end <= dash + SHORT_DASH]


def _dot_dashed(segments):
    """Every third of 18 segments, then none of 54."""
    index = np.arange(len(segments)) % (DOTTED_ON + DOTTED_OFF)
    return segments[(index < DOTTED_ON) & (index % DOT_EVERY == 0)]


def _dotted(segments):
    return segments[::DOTTED_EVERY]


PATTERNS = {
    "solid": _solid,
    "long_dashed": _long_dashed,
    "short_dashed": _short_dashed,
    "dot_dashed": _dot_dashed,
    "dotted": _dotted,
}
