"""Map elements of either format: which are kept, and what is counted about the others."""

import numpy as np

from jaxvid.scenario.notes import Notes
from jaxvid.scenario.plausible import is_usable

LONGEST = 20_000.0  # metres of one line; it becomes a point every 5 cm
WIDEST = 2_000.0  # metres of an outline, whose filling takes time with its square
LEAST = {"poles": 1, "crosswalks": 3, "road_markings": 3}  # points; 2 for all other elements
STATES = ("red", "yellow", "green", "unknown", "off")


def keep_elements(elements, name: str, notes: Notes) -> tuple[np.ndarray, ...]:
    """The usable ones of a list of (n, 3), as float32.

    name: the field of `Scene`, for the number of points needed and for the warning.
    """
    return tuple(
        points for points in (keep_points(e, name, notes) for e in elements) if len(points)
    )


def keep_points(points, name: str, notes: Notes) -> np.ndarray:
    """`points` (n, 3) as float32, or (0, 3), counted, where they make no element."""
    with np.errstate(over="ignore"):
        points = np.asarray(points, np.float32).reshape(-1, 3)
    least = LEAST.get(name, 2)
    longest = WIDEST if least > 2 else LONGEST
    if not is_usable(points):
        notes.count(f"{name.replace('_', ' ')} left out, NaN or huge coordinates")
    elif len(points) < least:
        notes.count(f"{name.replace('_', ' ')} left out, fewer than {least} points")
    elif np.linalg.norm(np.diff(points, axis=0), axis=1).sum() > longest:
        notes.count(f"{name.replace('_', ' ')} left out, over {longest / 1000:g} km (write metres)")
    else:
        return points
    return np.zeros((0, 3), np.float32)


def light_state(word, where: str) -> str:
    """One of STATES, of any case; nothing at all is "unknown". Raises ValueError."""
    state = str(word).lower() if word else "unknown"
    if state not in STATES:
        raise ValueError(f"{where}: a light cannot be {word!r}; use one of {', '.join(STATES)}")
    return state
