"""NumPy arrays as columns of parquet tables, and the checks of what is to be written."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxvid.core.files import atomic_path
from jaxvid.scenario import plausible

VERSION = 1725328440  # as in NVIDIA's example scene; readers ignore it


def struct(**fields) -> pa.StructArray:
    """Arrow arrays of equal length as the members of one column."""
    return pa.StructArray.from_arrays(list(fields.values()), names=list(fields))


def write_table(folder, clip: str, table: str, payload: pa.StructArray, **key: pa.Array) -> None:
    """Writes `{clip}.{table}.parquet`, whole or not at all.

    payload: n rows; key: (n,) members of the column of that name, besides the clip id.
    Raises ValueError for a clip id that makes no file name.
    """
    check_clip(clip)
    ids = pa.array([clip] * len(payload), pa.string())
    version = pa.array([VERSION] * len(payload), pa.uint64())
    whole = pa.table({"key": struct(clip_id=ids, **key), table: payload, "version": version})
    with atomic_path(Path(folder) / f"{clip}.{table}.parquet") as path:
        pq.write_table(whole, path, compression="zstd")


def write_map(folder, clip: str, table: str, payload: pa.StructArray) -> None:
    """Writes a table of map elements, whose keys are all alike."""
    words = {"label_class_id": f"minimap:{table}:v0", "map_id": clip, "map_id_version": "1"}
    key = {name: pa.array([word] * len(payload), pa.string()) for name, word in words.items()}
    write_table(folder, clip, table, payload, **key)


def xyz(rows: np.ndarray) -> pa.StructArray:
    """rows: (n, 3)."""
    return struct(**{m: pa.array(rows[:, i].astype(np.float32)) for i, m in enumerate("xyz")})


def xyzw(rows: np.ndarray) -> pa.StructArray:
    """rows: (n, 4)."""
    return struct(**{m: pa.array(rows[:, i].astype(np.float32)) for i, m in enumerate("xyzw")})


def points_column(elements: Sequence[np.ndarray]) -> pa.ListArray:
    """elements: (n, 3) each."""
    flat = np.concatenate([np.zeros((0, 3)), *elements])
    return lists(xyz(flat), [len(e) for e in elements])


def lists(values, counts: Sequence[int]) -> pa.ListArray:
    """One list per row; values: a list of words or an Arrow array of all members in turn."""
    values = pa.array(values, pa.string()) if isinstance(values, list) else values
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *counts]), pa.int32()), values)


def check_clip(clip: str) -> None:
    if not clip or "/" in clip or "." in clip:
        raise ValueError(f"the clip id {clip!r} becomes a file name: use neither dots nor slashes")


def check_times(timestamps, where: str) -> np.ndarray:
    """(n,) int64 of integer microseconds. This and the checks below raise ValueError."""
    times = np.asarray(timestamps)
    if times.ndim != 1 or not np.issubdtype(times.dtype, np.integer):
        found = f"{times.dtype}{times.shape}"
        raise ValueError(f"{where}: timestamps must be (n,) integers, microseconds, not {found}")
    return times.astype(np.int64)


def check_rows(values, width: int, where: str, what: str) -> np.ndarray:
    """(n, width) float64 of finite numbers."""
    try:
        rows = np.asarray(values, np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {what} must be (n, {width}) numbers: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"{where}: {what} must have the shape (n, {width}), not {rows.shape}")
    plausible.check_finite(rows, where, what)
    return rows


def check_rotations(rotations, where: str) -> np.ndarray:
    """(n, 4) quaternions, brought to length 1."""
    rows = check_rows(rotations, 4, where, "rotations")
    plausible.check_quaternions(rows, where)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def check_elements(elements: Sequence, fewest: int, where: str) -> list[np.ndarray]:
    """One (n, 3) float64 each, n >= fewest."""
    found = [check_rows(e, 3, where, f"element {i}") for i, e in enumerate(elements)]
    for i, points in enumerate(found):
        if len(points) < fewest:
            raise ValueError(
                f"{where}: element {i} has {len(points)} points; give {fewest} or more"
            )
    return found


def same_length(where: str, **arrays) -> None:
    """Raises ValueError, with the lengths by name, unless they are equal."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{n} {name}" for name, n in lengths.items())
        raise ValueError(f"{where}: {listed}; give one of each per row")
