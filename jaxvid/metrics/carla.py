"""Where a car is: cells of the map that CARLA Town01's coordinate regressor has one head for."""

import numpy as np

LOW, HIGH = -10.0, 400.0  # metres, both axes of Town01
CELLS = 10  # along each axis


def cells(points: np.ndarray) -> np.ndarray:
    """(..., 2) world coordinates to (...) cell indices, first axis slow; -1 outside the map.

    A cell includes its lower border, the last one also its upper (`carla_regressor.py`).
    """
    edges = np.linspace(LOW, HIGH, CELLS + 1)
    points = np.asarray(points, np.float64)
    place = np.searchsorted(edges, points, side="right") - 1
    place = np.where(points == HIGH, CELLS - 1, place)
    inside = np.all((place >= 0) & (place < CELLS), axis=-1)
    return np.where(inside, place[..., 0] * CELLS + place[..., 1], -1)


def coordinates(cell_logits: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """World coordinates (..., 2) from the classifier's logits (..., 100) and all heads' outputs
    (..., 100, 2): those of the likeliest cell's head."""
    best = np.argmax(cell_logits, axis=-1)[..., None, None]
    return np.take_along_axis(heads, best, axis=-2)[..., 0, :]
