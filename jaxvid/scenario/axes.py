"""Axes of the two worlds and rotations between them, in the precision upstream uses."""

import numpy as np
from scipy.spatial.transform import Rotation

RDF_FROM_FLU = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], np.float64)


def to_rdf(points) -> np.ndarray:
    """(..., 3) forward-left-up to right-down-forward, float32; exact, as axes only swap."""
    with np.errstate(over="ignore"):  # infinity is found by those who check
        points = np.asarray(points, np.float32)
    return np.stack([-points[..., 1], -points[..., 2], points[..., 0]], axis=-1)


def vehicle_to_rdf(rotations: Rotation) -> np.ndarray:
    """Quaternions (n, 4) float32 of poses whose body axes change along with the world's."""
    return _quaternions(RDF_FROM_FLU @ rotations.as_matrix() @ RDF_FROM_FLU.T)


def object_to_rdf(rotations: Rotation) -> np.ndarray:
    """Quaternions (n, 4) float32 of objects, whose body axes stay forward, left, up."""
    return _quaternions(RDF_FROM_FLU @ rotations.as_matrix())


def pose_matrix(quaternion, position) -> np.ndarray:
    """(4, 4) float32 from a quaternion (4,) x, y, z, w and a position (3,)."""
    pose = np.eye(4, dtype=np.float32)
    pose[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    pose[:3, 3] = position
    return pose


def _quaternions(matrices) -> np.ndarray:
    return Rotation.from_matrix(matrices).as_quat().astype(np.float32)
