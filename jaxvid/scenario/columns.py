"""Columns of parquet tables as NumPy arrays, whatever their width; nested ones by dotted names."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jaxvid.scenario.notes import listing


class Columns:
    """A whole table in memory.

    Raises ValueError, which names the file, if it is no parquet or lacks a column asked for.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.table = pq.read_table(path)
            self.table.validate(full=True)
            _check_names(self.table.schema)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{path} is not a readable parquet file: {reason}") from error

    def __len__(self) -> int:
        return self.table.num_rows

    def has(self, name: str) -> bool:
        """Whether there is such a column, e.g. "lane_line.styles"."""
        try:
            self._field(name)
        except ValueError:
            return False
        return True

    def words(self, name: str) -> list:
        """The Python values of a column."""
        return self._field(name).to_pylist()

    def integers(self, name: str) -> np.ndarray:
        """(n,) int64. Raises ValueError for empty cells and for numbers that are not whole."""
        column = self._field(name)
        try:
            values = column.cast(pa.int64())
        except pa.ArrowException as error:
            raise ValueError(f"{self.path}: column {name} must hold integers: {error}") from error
        if values.null_count:
            raise ValueError(f"{self.path}: column {name} has {values.null_count} empty cells")
        return values.to_numpy(zero_copy_only=False)

    def vectors(self, name: str, members: str = "xyz") -> np.ndarray:
        """(n, len(members)) float64 of a struct; empty cells are NaN."""
        return np.stack([self._numbers(f"{name}.{m}") for m in members], axis=-1)

    def polylines(self, name: str) -> list[np.ndarray]:
        """One (k, 3) float64 per row of a list of x, y, z; an empty cell gives no points."""
        column = self._field(name)
        if not _is_list(column.type) or not pa.types.is_struct(column.type.value_type):
            raise ValueError(f"{self.path}: column {name} must be a list of x, y, z")
        counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        points = pc.list_flatten(column)
        try:
            values = [_as_floats(pc.struct_field(points, m)) for m in "xyz"]
        except pa.ArrowException as error:
            raise ValueError(f"{self.path}: column {name} must be a list of x, y, z") from error
        return np.split(np.stack(values, axis=-1), np.cumsum(counts)[:-1]) if len(counts) else []

    def _numbers(self, name: str) -> np.ndarray:
        column = self._field(name)
        try:
            return _as_floats(column)
        except pa.ArrowException as error:
            raise ValueError(f"{self.path}: column {name} must hold numbers") from error

    def _field(self, name: str):
        first, *rest = name.split(".")
        if first not in self.table.column_names:
            raise ValueError(self._missing(name, self.table.column_names))
        column = self.table[first].combine_chunks()
        for member in rest:
            if pa.types.is_null(column.type):
                break  # of a struct without a single filled cell only the name is left
            known = [f.name for f in column.type] if pa.types.is_struct(column.type) else []
            if member not in known:
                raise ValueError(self._missing(name, known))
            column = pc.struct_field(column, member)  # keeps the empty cells of the struct
        return column

    def _missing(self, name: str, known) -> str:
        return f"{self.path} has no column {name}; there is: {listing(known, 12) or 'nothing'}"


def _check_names(fields) -> None:
    """Raises UnicodeError for damaged names, also of nested columns."""
    for field in fields:
        kind = field.type.value_type if _is_list(field.type) else field.type
        if field.name and pa.types.is_struct(kind):
            _check_names(kind)


def _as_floats(column) -> np.ndarray:
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _is_list(kind) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)
