"""What the evaluation scripts of FDM see of stored pixels: uint8 to floats and back.

Upstream converts by truncation after arithmetic in float32, so that some pixel values reach
the metrics one lower than they were stored. Published figures contain that; `pixels` names
the choice: "paper" (video_eval.py), "refactored" (video_fvd.py) or "exact" (values as stored).
"""

import numpy as np

RULES = ("paper", "refactored", "exact")
STORED = np.arange(256, dtype=np.uint8)


def unit(stored: np.ndarray) -> np.ndarray:
    """Stored uint8 pixels as float32 in [0, 1]."""
    return (stored / 255.0).astype(np.float32)


def dataset_floats() -> np.ndarray:
    """The 256 pixel values as upstream's datasets return them: float32 in [-1, 1]."""
    return np.float32(-1) + np.float32(2) * (STORED.astype(np.float32) / np.float32(255))


def truth_table(rule: str) -> np.ndarray:
    """uint8 value that reaches FVD for each pixel value of the ground truth: (256,)."""
    check_rule(rule)
    if rule == "exact":
        return STORED
    floats = dataset_floats()
    if rule == "paper":
        return (((floats + 1) / 2) * 255).astype(np.uint8)
    return ((floats + 1) * 255 / 2).astype(np.uint8)


def sample_table(rule: str) -> np.ndarray:
    """uint8 value that reaches FVD for each pixel value of a sample file: (256,)."""
    check_rule(rule)
    if rule == "exact":
        return STORED
    if rule == "paper":
        return (unit(STORED) * 255).astype(np.uint8)
    floats = np.float32(-1) + 2 * STORED.astype(np.float32) / 255
    return ((floats + 1) * 255 / 2).astype(np.uint8)


def check_rule(rule: str) -> None:
    """Raises ValueError for an unknown rule."""
    if rule not in RULES:
        raise ValueError(f"pixels={rule!r} is unknown: use one of {', '.join(RULES)}")
