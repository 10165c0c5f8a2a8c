"""Distances between two sets of feature vectors: Fréchet and polynomial kernel.

The formulas are those of torch-fidelity, which FDM's evaluation uses, in float64.
"""

import numpy as np


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance between Gaussians fitted to two feature sets.

    |mean_a - mean_b|^2 + tr(A) + tr(B) - 2 tr(sqrt(A B)), with sample covariances (N - 1).

    a: (n, c), b: (m, c), n and m at least 2. With centred features X and Y the eigenvalues of
    A B are the squared singular values of X Y^T, so the last trace is a sum of singular values.
    That is real and accurate for singular covariances as well, where the matrix square root
    of scipy needs a small multiple of the identity or returns complex numbers.
    """
    check_features(a, b)
    x, y = centred(a), centred(b)
    root = np.linalg.svd(triangle(x) @ triangle(y).T, compute_uv=False).sum()
    offset = np.sum(np.square(a.mean(axis=0) - b.mean(axis=0)))
    return float(offset + np.sum(x * x) + np.sum(y * y) - 2 * root)


def centred(features: np.ndarray) -> np.ndarray:
    """Features minus their mean, scaled so that x.T @ x is the sample covariance."""
    features = features.astype(np.float64)
    return (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)


def triangle(x: np.ndarray) -> np.ndarray:
    """A factor with at most c rows whose r.T @ r equals x.T @ x; keeps the SVD small."""
    return np.linalg.qr(x, mode="r")


def polynomial_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """Squared maximum mean discrepancy under the kernel (x . y / c + 1)^3.

    a, b: (n, c) with equal n. The diagonals are left out within a set but not between the
    sets ("unbiased" in torch-fidelity).
    """
    check_features(a, b)
    if len(a) != len(b):
        raise ValueError(f"the kernel distance needs sets of one size, got {len(a)} and {len(b)}")
    n = len(a)
    within = sum(np.sum(k) - np.trace(k) for k in (kernel(a, a), kernel(b, b)))
    return float(within / (n * (n - 1)) - 2 * np.mean(kernel(a, b)))


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Cubic polynomial kernel of all pairs of rows."""
    return (x.astype(np.float64) @ y.T / x.shape[1] + 1) ** 3


def kernel_distance(
    a: np.ndarray, b: np.ndarray, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float]:
    """Mean and standard deviation of `polynomial_mmd` over random subsets (KVD).

    Subsets are drawn without replacement, from `a` first; the numpy `RandomState` stream
    equals upstream's.
    """
    check_features(a, b)
    smallest = min(len(a), len(b))
    if subset_size > smallest:
        raise ValueError(f"subset_size={subset_size} exceeds the {smallest} feature vectors")
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        part_a = a[rng.choice(len(a), subset_size, replace=False)]
        part_b = b[rng.choice(len(b), subset_size, replace=False)]
        values.append(polynomial_mmd(part_a, part_b))
    return float(np.mean(values)), float(np.std(values))


def check_features(a: np.ndarray, b: np.ndarray) -> None:
    """Raises ValueError unless a and b are finite feature matrices of one width, 2 rows or more."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"expected features (n, c) and (m, c), got {a.shape} and {b.shape}")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance needs at least 2 videos, got {len(a)} and {len(b)}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("the features contain NaN or infinity; check the weights and the videos")
