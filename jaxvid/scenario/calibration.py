"""Calibrations of your own cameras: the table with lenses and mounting positions.

Lenses are f-theta: a polynomial of degree at most 5 ties the angle to the optical axis (radians) to
the distance from the principal point (pixels). `pinhole_polynomial` fits one to a pinhole camera.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from scipy.spatial.transform import Rotation

from jaxvid.scenario import arrow, plausible
from jaxvid.scenario.axes import RDF_FROM_FLU
from jaxvid.scenario.camera import make_camera
from jaxvid.scenario.fitting import SAMPLES, fit

Direction = Literal["pixeldistance-to-angle", "angle-to-pixeldistance"]


@dataclasses.dataclass(frozen=True)
class CameraCalibration:
    """One camera: lens in pixels of its own sensor, place in metres and degrees.

    polynomial: 5 or 6 coefficients, from the constant (0) up, in the direction named.
    position: (x forward, y left, z up) of the camera in the vehicle.
    angles: roll, pitch, yaw in degrees about the vehicle's x, y, z axes, in that order, of a camera
      that looks along x; `optical_angles` converts a matrix with optical axes.
    linear: c, d, e of the matrix [[c, d], [e, 1]] that is applied before the centre is added.
    """

    name: str  # e.g. camera_front_wide_120fov, see scene.CAMERAS for the names that have a view
    width: int
    height: int
    center: tuple[float, float]
    polynomial: tuple[float, ...]
    direction: Direction
    position: tuple[float, float, float]
    angles: tuple[float, float, float]
    linear: tuple[float, float, float] = (1.0, 0.0, 0.0)

    def __post_init__(self):
        where = f"calibration of {self.name}"
        if self.direction not in ("pixeldistance-to-angle", "angle-to-pixeldistance"):
            raise ValueError(
                f"{where}: direction={self.direction!r} is unknown; use pixeldistance-to-angle or "
                "angle-to-pixeldistance"
            )
        if "/" in self.name or "," in self.name:
            raise ValueError(f"{where}: the name becomes a folder; use neither slashes nor commas")
        for name, size in {"center": 2, "position": 3, "angles": 3, "linear": 3}.items():
            if np.shape(getattr(self, name)) != (size,):
                raise ValueError(f"{where}: {name}={getattr(self, name)}; give {size} numbers")
        if len(self.polynomial) not in (5, 6):
            raise ValueError(f"{where}: {len(self.polynomial)} coefficients; give 5 or 6")
        if not np.isfinite(self.angles).all():
            raise ValueError(f"{where}: the angles {self.angles} are no numbers; give degrees")
        plausible.check_mounting(np.asarray(self.position), where)
        try:
            make_camera(*self.lens())
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    def lens(self):
        """The arguments of `make_camera`."""
        c, d, e = self.linear
        coefficients = np.zeros(6)
        coefficients[: len(self.polynomial)] = self.polynomial
        backward = self.direction == "pixeldistance-to-angle"
        return self.center, (self.width, self.height), coefficients, backward, ((c, d), (e, 1.0))


def write_calibration(
    folder: str | os.PathLike, clip: str, cameras: Sequence[CameraCalibration]
) -> None:
    """Writes `{clip}.calibration_estimate.parquet`; all cameras share the vehicle's frame.

    Raises ValueError without a camera, or with two of one name.
    """
    if not cameras:
        raise ValueError(f"calibration of {clip}: there are no cameras; give at least one")
    names = [camera.name.replace(":", "_") for camera in cameras]
    if len(set(names)) < len(names):
        raise ValueError(f"calibration of {clip}: a camera name occurs twice among {names}")
    rig = {"rig": {"name": clip, "sensors": [_sensor(camera) for camera in cameras]}}
    payload = arrow.struct(name=pa.array(["rig"]), rig_json=pa.array([json.dumps(rig)]))
    time = pa.array([-1], pa.int64())
    arrow.write_table(folder, clip, "calibration_estimate", payload, timestamp_micros=time)


def pinhole_polynomial(focal: float, width: int, height: int, center=None) -> tuple[float, ...]:
    """The pixel-to-angle coefficients nearest to a pinhole camera without distortion.

    focal: pixels; center: (2,) pixels, None for the middle of the image. The fit of degree 5 to
    atan(r / focal), without a constant, is off by up to 1.1e-3 rad for a field of view of 120
    degrees (2.3 of 1920 pixels, towards the corners) and 5e-5 rad for 90 degrees. Undistort images
    of lenses with strong distortion, or fit their own curve. Raises ValueError for other numbers
    than positive ones.
    """
    if not (focal > 0 and width > 1 and height > 1):
        raise ValueError(f"focal={focal}, {width}x{height}: give positive numbers of pixels")
    center = np.asarray((width / 2, height / 2) if center is None else center)
    reach = np.hypot(*np.maximum(center, (width, height) - center))
    radii = np.linspace(0, reach, SAMPLES)
    return tuple(fit(radii, np.arctan(radii / focal)).tolist())


def optical_angles(rotation) -> tuple[float, float, float]:
    """`CameraCalibration.angles` of a matrix (3, 3) from optical axes to the vehicle's.

    Optical axes: x right, y down, z into the scene; the vehicle's: x forward, y left, z up.
    Raises ValueError for a matrix that is no rotation.
    """
    rotation = np.asarray(rotation, np.float64)
    error = np.abs(rotation @ rotation.T - np.eye(3)).max() if rotation.shape == (3, 3) else 1
    if not error < 1e-3 or np.linalg.det(rotation) < 0:  # also NaN
        raise ValueError(f"{rotation.tolist()} is not a rotation; give a 3x3 matrix without scale")
    body = Rotation.from_matrix(rotation @ RDF_FROM_FLU)
    return tuple(body.as_euler("xyz", degrees=True).tolist())


def _sensor(camera: CameraCalibration) -> dict:
    properties = {
        "Model": "ftheta",
        "cx": f"{camera.center[0]:.9g}",
        "cy": f"{camera.center[1]:.9g}",
        "width": str(camera.width),
        "height": str(camera.height),
        "polynomial": " ".join(f"{c:.9g}" for c in camera.polynomial),
        "polynomial-type": camera.direction,
        **{f"linear-{n}": f"{v:.9g}" for n, v in zip("cde", camera.linear, strict=True)},
    }
    place = {"t": [*map(float, camera.position)], "roll-pitch-yaw": [*map(float, camera.angles)]}
    return {"name": camera.name, "properties": properties, "nominalSensor2Rig_FLU": place}
