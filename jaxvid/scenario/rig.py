"""Camera rigs of the parquet format: the JSON in `calibration_estimate`."""

import json

import numpy as np
from scipy.spatial.transform import Rotation

from jaxvid.scenario.axes import pose_matrix, to_rdf, vehicle_to_rdf
from jaxvid.scenario.camera import FTheta, make_camera
from jaxvid.scenario.notes import listing
from jaxvid.scenario.plausible import check_mounting

POLYNOMIALS = ("polynomial", "bw-poly")
DIRECTIONS = {"angle-to-pixeldistance": False, "pixeldistance-to-angle": True}


def read_rig(text: str | None, where: str) -> dict[str, dict]:
    """The camera sensors of a `rig_json`, by name with underscores.

    Sensors without a polynomial that are not called camera (lidars, radars) are left out. Raises
    ValueError.
    """
    try:
        sensors = json.loads(text or "")["rig"]["sensors"]
        named = {str(sensor["name"]): sensor for sensor in sensors if "name" in sensor}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{where}: rig_json is no JSON with rig.sensors ({reason})") from error
    return {underscored(name): s for name, s in named.items() if _is_camera(name, s)}


def underscored(name: str) -> str:
    """The spelling used inside: camera:front:wide:120fov is camera_front_wide_120fov."""
    return name.strip().replace(":", "_")


def camera_model(sensor: dict, where: str) -> FTheta:
    """The lens of one sensor; raises ValueError for what makes no camera.

    Without a `polynomial-type`, `bw-poly` turns pixels into angles, and so does a polynomial whose
    linear coefficient is below 1.
    """
    lens = sensor.get("properties")
    if not isinstance(lens, dict):
        raise ValueError(f"{where}: no properties; give cx, cy, width, height and polynomial")
    key = next((key for key in POLYNOMIALS if key in lens), None)
    if key is None:
        raise ValueError(f"{where}: no polynomial among {listing(lens)}; only f-theta is supported")
    coefficients = _coefficients(lens[key], where)
    kind = str(lens.get("polynomial-type", ""))
    backward = DIRECTIONS.get(kind, key == "bw-poly" or abs(coefficients[1]) < 1)
    numbers = [_number(lens, name, where) for name in ("cx", "cy", "width", "height")]
    terms = {"linear-c": 1.0, "linear-d": 0.0, "linear-e": 0.0}
    c, d, e = (_number(lens, name, where, default) for name, default in terms.items())
    try:
        linear = ((c, d), (e, 1))
        return make_camera(numbers[:2], np.trunc(numbers[2:]), coefficients, backward, linear)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def camera_to_rig(sensor: dict, where: str) -> np.ndarray:
    """(4, 4) float32, camera axes to the vehicle's, both right-down-forward.

    As every upstream release, it ignores correction_sensor_R_FLU and correction_rig_T.
    """
    mounting = sensor.get("nominalSensor2Rig_FLU") or {}
    try:
        position = np.array(mounting.get("t", (0, 0, 0)), np.float64).reshape(3)
        angles = np.array(mounting.get("roll-pitch-yaw", (0, 0, 0)), np.float64).reshape(3)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{where}: nominalSensor2Rig_FLU needs t (3 metres) and roll-pitch-yaw (3 degrees)"
        ) from error
    check_mounting(position, where)
    if not np.isfinite(angles).all():
        raise ValueError(f"{where}: roll-pitch-yaw is {angles}; give degrees")
    rotation = Rotation.from_euler("xyz", angles, degrees=True)  # fixed axes: Rz Ry Rx
    return pose_matrix(vehicle_to_rdf(rotation), to_rdf(position))


def _is_camera(name: str, sensor: dict) -> bool:
    lens = sensor.get("properties")
    return name.startswith("camera") or (
        isinstance(lens, dict) and not lens.keys().isdisjoint(POLYNOMIALS)
    )


def _coefficients(text, where: str) -> list[float]:
    try:
        numbers = [float(word) for word in (text.split() if isinstance(text, str) else text)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: the polynomial {text!r} is no list of numbers") from error
    if len(numbers) not in (5, 6):
        raise ValueError(f"{where}: {len(numbers)} polynomial coefficients; give 5 or 6")
    return numbers + [0.0] * (6 - len(numbers))


def _number(lens: dict, name: str, where: str, default: float | None = None) -> float:
    value = lens.get(name, default)
    try:
        number = float(value)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {name} is {value!r}; give a number") from error
    if not np.isfinite(number):
        raise ValueError(f"{where}: {name} is {value!r}; give a number")
    return number
