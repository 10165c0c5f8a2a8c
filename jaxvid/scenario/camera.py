"""The f-theta camera: pixel distance from the principal point as a polynomial of the ray's angle.

Camera axes are x right, y down, z forward. Pixel coordinate 0 is the left or top edge of the image.
Functions that take `xp` work on NumPy arrays and, with `xp=jax.numpy`, inside jit, vmap and grad:
an `FTheta` is a pytree, so its own numbers can be calibrated.
"""

from typing import NamedTuple

import numpy as np

from jaxvid.scenario.fitting import check_model, fit_backward, fit_forward, polynomial, slope

TINY = float(np.finfo(np.float32).eps)
SMALLEST = 1e-3  # radians from the axis to the farthest corner
LOOSE = 0.02  # of the image's diagonal: how far a pixel may be after a round trip


class FTheta(NamedTuple):
    """All float32 except the last two; make one with `make_camera`, which fits and checks it."""

    center: np.ndarray  # (2,) principal point, pixels
    forward: np.ndarray  # (6,) coefficients of theta^i: radians to pixels
    backward: np.ndarray  # (6,) coefficients of r^i: pixels to radians
    linear: np.ndarray  # (2, 2) [[c, d], [e, 1]], applied to the scaled direction
    max_angle: np.ndarray  # () of the farthest image corner; beyond it `forward` goes on straight
    size: np.ndarray  # (2,) int32 width, height
    given_backward: np.ndarray  # () bool: `backward` was given and `forward` fitted

    @property
    def width(self) -> int:
        return int(self.size[0])

    @property
    def height(self) -> int:
        return int(self.size[1])

    def radius(self, angle, xp=np):
        """Pixels from the principal point, before the linear term, of rays at `angle` radians."""
        inside = polynomial(self.forward, xp.minimum(angle, self.max_angle))
        beyond = xp.maximum(angle - self.max_angle, 0) * slope(self.forward, self.max_angle)
        return inside + beyond

    def project(self, points, xp=np):
        """points: (..., 3) metres, camera axes. Returns uv (..., 2) pixels and depth (...).

        Points behind the camera keep going out on a straight line, up to 180 degrees; their depth
        is negative. Differentiable everywhere in front of the camera, on its axis too.
        """
        x, y, z = _components(points, xp)
        square = x * x + y * y
        on_axis = square == 0
        lateral = xp.sqrt(xp.where(on_axis, 1, square))
        scale = self.radius(xp.arctan2(lateral, z), xp) / lateral
        limit = self.forward[1] / xp.where(z > 0, z, 1)  # of the line above, towards the axis
        scale = xp.where(on_axis, limit, scale)
        return self._place(scale * x, scale * y, xp), z

    def project_upstream(self, points):
        """As `project`, but as v1.5 does it: NumPy only, with its wrong angle near the axis.

        Where the float32 cosine rounds to 1 the angle becomes the distance from the axis in metres
        (cosmos-transfer2.5, `world_scenario/utils/camera/ftheta.py`).
        """
        x, y, z = _components(points, np)
        square = x * x + y * y
        distance = np.sqrt(square + z * z)
        lateral = np.sqrt(square)
        cosine = z / np.where(distance == 0, 1, distance)
        angle = np.where(np.abs(cosine) < 1, np.arccos(np.clip(cosine, -1, 1)), lateral)
        scale = np.where(lateral == 0, 0, self.radius(angle) / np.where(lateral == 0, 1, lateral))
        return self._place(scale * x, scale * y, np), z

    def unproject(self, pixels, xp=np):
        """pixels: (..., 2). Returns unit rays (..., 3) and valid (...), False at the centre.

        At the principal point itself, where upstream has no direction, the ray is (0, 0, 1).
        """
        x, y = _components(xp.asarray(pixels, xp.float32) - self.center, xp)
        (a, b), (c, d) = self.linear
        determinant = a * d - b * c
        x, y = (d * x - b * y) / determinant, (a * y - c * x) / determinant
        square = x * x + y * y
        valid = square > TINY**2
        radius = xp.sqrt(xp.where(valid, square, 1))
        angle = polynomial(self.backward, radius)
        scale = xp.where(valid, xp.sin(angle), 0) / radius
        return xp.stack([scale * x, scale * y, xp.where(valid, xp.cos(angle), 1)], axis=-1), valid

    def rescale(self, height: int, width: int, truncate: bool = False) -> "FTheta":
        """The camera of an image resized to (height, width).

        An uneven change of shape is applied to the centre, and its geometric mean to the
        polynomial. truncate: as upstream, whose size can come out one pixel short.
        Raises ValueError if the camera does not hold at that size.
        """
        ratio = np.array([width, height]) / self.size
        size = np.trunc(self.size * ratio) if truncate else np.array([width, height])
        factor = np.sqrt(ratio.prod())
        powers = factor ** np.arange(6.0)
        given = self.backward / powers if self.given_backward else self.forward * factor
        center = self.center * ratio.astype(np.float32)
        return make_camera(center, size, given, bool(self.given_backward), self.linear)

    def _place(self, x, y, xp):
        (a, b), (c, d) = self.linear
        center_x, center_y = self.center
        return xp.stack([a * x + b * y + center_x, c * x + d * y + center_y], axis=-1)


def make_camera(center, size, coefficients, backward: bool, linear=((1, 0), (0, 1))) -> FTheta:
    """Builds a camera from one polynomial; the other is fitted by least squares.

    center: (2,) pixels; size: (width, height); coefficients: (6,) from the constant up.
    backward: whether `coefficients` turn pixels into radians rather than radians into pixels.
    linear: [[c, d], [e, 1]].
    Raises ValueError for numbers that make no camera.
    """
    center, linear = np.asarray(center, np.float64), np.asarray(linear, np.float64)
    given = np.asarray(coefficients, np.float64)
    check_model(center, np.asarray(size), given, linear)
    size = np.asarray(size, np.int32)
    reach = np.hypot(*np.maximum(center, size - center))
    fitted = (fit_forward if backward else fit_backward)(given, reach)
    forward, back = (fitted, given) if backward else (given, fitted)
    corners = np.array([(x, y) for y in (0, size[1] - 1) for x in (0, size[0] - 1)])
    radii = np.linalg.norm((corners - center) @ np.linalg.inv(linear).T, axis=-1)
    max_angle = polynomial(back, radii).max()
    if not 0 < max_angle <= np.pi or slope(forward, max_angle) < 0:
        raise ValueError(
            f"the polynomial {_words(given)} gives the image corner {np.degrees(max_angle):.4g} "
            f"degrees and {slope(forward, max_angle):.4g} pixels per radian there; it must rise "
            "up to the corners, within 180 degrees; check polynomial-type and the size"
        )
    arrays = (np.asarray(a, np.float32) for a in (center, forward, back, linear, max_angle))
    model = FTheta(*arrays, size, np.asarray(backward))
    _check_use(model, given)
    return model


def to_camera(points, to_world, xp=np):
    """Takes world points (..., 3) into camera axes; to_world: (4, 4) camera to world, float32."""
    inverse = xp.linalg.inv(xp.asarray(to_world, xp.float32))
    return xp.asarray(points, xp.float32) @ inverse[:3, :3].T + inverse[:3, 3]


def _check_use(model: FTheta, given) -> None:
    """Raises ValueError for a camera that sees a speck, or whose pixels do not come back."""
    if model.max_angle < SMALLEST:
        raise ValueError(
            f"the polynomial {_words(given)} sees {np.degrees(model.max_angle):.2g} degrees, so it "
            "projects nothing; check polynomial-type and its units (pixels, radians)"
        )
    pixels = np.stack(np.meshgrid(*(np.linspace(0, side, 9) for side in model.size)), axis=-1)
    error = np.abs(model.project(model.unproject(pixels)[0])[0] - pixels).max()
    if not error < LOOSE * np.hypot(*model.size):
        raise ValueError(
            f"the polynomial {_words(given)} takes pixels up to {error:.3g} pixels from where they "
            "were, so it does not rise steadily inside the image; check its coefficients"
        )


def _components(vectors, xp):
    vectors = xp.asarray(vectors, xp.float32)
    return [vectors[..., i] for i in range(vectors.shape[-1])]


def _words(coefficients) -> str:
    return " ".join(f"{c:.6g}" for c in coefficients)
