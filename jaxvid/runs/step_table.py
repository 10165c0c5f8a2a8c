"""A CSV file with a row for some updates of a training run, which a resumed run continues."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxvid.core.files import atomic_path


class StepTable:
    """Rows that begin with the number of an update, `step`; a new column is empty above."""

    def __init__(self, path: Path, last: int):
        """Drops the rows after update `last`, which the run is going to repeat.

        Raises:
          ValueError: the file is there, but holds something else.
        """
        self.path, self.names = path, []
        rows = [row for row in _rows(path) if int(row["step"]) <= last]
        if rows:
            self._write(rows)
        else:
            path.unlink(missing_ok=True)

    def append(self, row: Mapping) -> None:
        """Adds one row; a process that is killed meanwhile leaves a last line that is no row."""
        if not set(row) <= set(self.names):
            self._write([*_rows(self.path), row])
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.names, restval="").writerow(row)

    def _write(self, rows: Sequence[Mapping]) -> None:
        self.names = list(dict.fromkeys(name for row in rows for name in row))
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.names, restval="")
            writer.writeheader()
            writer.writerows(rows)


def _rows(path: Path) -> list[dict]:
    """Rows whose line is whole; [] without a file."""
    if not path.exists():
        return []
    try:
        text = path.read_bytes().decode()
        reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
        rows = list(reader)
        if all(row["step"].isdecimal() and None not in (*row, *row.values()) for row in rows):
            return rows
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError):
        pass
    raise ValueError(f"{path} is no log of updates, or a damaged one: mend it or move it away")
