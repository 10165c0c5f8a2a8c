"""Polynomials of the f-theta camera: evaluation, the fitted inverse, what makes no camera."""

import numpy as np

SAMPLES = 500
LARGEST = 1e6  # pixels
STEEPEST = 100.0  # of the linear terms
ANGLES = 2000  # steps of the search for the largest usable angle, over 180 degrees


def polynomial(coefficients, x):
    """sum of c_i x^i; coefficients: (6,); x: any shape. NumPy or JAX."""
    total = coefficients[5]
    for i in range(4, -1, -1):
        total = total * x + coefficients[i]
    return total


def slope(coefficients, x):
    """The derivative of `polynomial` at x."""
    total = 5 * coefficients[5]
    for i in range(4, 0, -1):
        total = total * x + i * coefficients[i]
    return total


def fit_forward(backward, reach: float) -> np.ndarray:
    """The (6,) coefficients from angle to pixels that undo `backward` on [0, reach] pixels.

    No constant, degree 5, least squares on 500 even radii, as upstream (`ftheta.py`), whose
    bounded solver agrees with this one to 4e-5 pixels. Rounded to float32.
    """
    radii = np.linspace(0, reach, SAMPLES)
    return fit(polynomial(backward, radii), radii)


def fit_backward(forward, reach: float) -> np.ndarray:
    """The (6,) coefficients from pixels to angle that undo `forward`, up to `reach` pixels.

    The angles go up to the first of 2000 steps that lies beyond `reach`, or to where `forward`
    stops rising. Raises ValueError if it never does.
    """
    angles = np.arange(1, ANGLES + 1) * (np.pi / ANGLES)
    rising = np.logical_and.accumulate(slope(forward, angles) > 0)
    beyond = np.flatnonzero(rising & (polynomial(forward, angles) > reach))
    last = beyond[0] if len(beyond) else int(rising.sum()) - 1
    if last < 0:
        raise ValueError("the polynomial from angle to pixels does not rise; check its order")
    angles = np.linspace(0, angles[last], SAMPLES)
    return fit(polynomial(forward, angles), angles)


def check_model(center, size, coefficients, linear) -> None:
    """Raises ValueError for numbers of a camera that cannot be right; shapes as `make_camera`."""
    if coefficients.shape != (6,):
        raise ValueError(f"{coefficients.size} polynomial coefficients; give 5 or 6")
    for name, numbers in (("centre", center), ("polynomial", coefficients), ("linear", linear)):
        if not np.isfinite(numbers).all():
            raise ValueError(f"the {name} of the camera holds {numbers.ravel()}; give numbers")
    if not ((size >= 2) & (size <= LARGEST)).all():
        raise ValueError(f"an image of {size[0]:g}x{size[1]:g} is too small or too large")
    if (np.abs(center) > LARGEST).any():
        raise ValueError(f"the centre {center} is in no image; give pixels")
    if not coefficients[1:].any():
        raise ValueError("all coefficients of the polynomial are zero; give those of a lens")
    if abs(np.linalg.det(linear)) < 1e-6 or np.abs(linear).max() > STEEPEST:
        raise ValueError(f"the linear terms {linear.ravel()} make no image; use 1, 0, 0")


def fit(x, y) -> np.ndarray:
    """(6,) float32 coefficients, the constant 0, of y (n,) as a polynomial of x (n,)."""
    with np.errstate(over="ignore"):
        columns = x[:, None] ** np.arange(1, 6)
    scale = np.abs(columns).max(axis=0)
    if not (np.isfinite(columns).all() and scale.all()):
        raise ValueError("the polynomial is flat or overflows; check its coefficients")
    solution = np.linalg.lstsq(columns / scale, y, rcond=None)[0] / scale
    return np.concatenate([[0], solution]).astype(np.float32)
