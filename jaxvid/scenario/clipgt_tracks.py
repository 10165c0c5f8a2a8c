"""Objects of the ClipGT format: rows of the `obstacle` table, grouped into tracks."""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from jaxvid.scenario import plausible
from jaxvid.scenario.axes import object_to_rdf, to_rdf
from jaxvid.scenario.categories import kind_of
from jaxvid.scenario.columns import Columns
from jaxvid.scenario.notes import Notes
from jaxvid.scenario.scene import Track

EXTRAPOLATION_US = 500_000
MOVED = 0.5  # metres between two observations of an object that is not parked
DUPLICATE = "labelstore:"  # second entries of numeric ids


def read_tracks(path: Path, pose_times, notes: Notes) -> tuple[Track, ...]:
    """The tracks of a table, ascending in id as a string; none if there is no file.

    Raises ValueError for an empty table, NaN positions, and times or sizes in other units.
    """
    if not path.is_file():
        return ()
    table = Columns(path)
    if not len(table):
        raise ValueError(f"{path} has no rows; leave the file out if the scene has no objects")
    times = table.integers("key.timestamp_micros")
    columns = {
        "center": table.vectors("obstacle.center"),
        "size": table.vectors("obstacle.size"),
        "orientation": table.vectors("obstacle.orientation", "xyzw"),
    }
    for name, values in columns.items():
        plausible.check_finite(values, str(path), name)
    plausible.check_sizes(columns["size"], str(path))
    plausible.check_overlap(times, pose_times, EXTRAPOLATION_US, str(path), "objects")
    categories = table.words("obstacle.category")
    rows: dict[str, list[int]] = {}
    for row, track in enumerate(table.words("obstacle.trackline_id")):
        rows.setdefault(str(track), []).append(row)
    tracks = []
    for track in sorted(rows):
        chosen = np.array(rows[track])
        chosen = chosen[np.argsort(times[chosen], kind="stable")]
        tracks.append(_track(track, times, columns, categories, chosen, notes))
    return tuple(track for track in tracks if track is not None)


def _track(name: str, times, columns, categories, rows, notes: Notes) -> Track | None:
    """One track from its rows in order of time, or None, counted, if it cannot be drawn."""
    if name.startswith(DUPLICATE):
        notes.count(f"tracks left out, {DUPLICATE} repeats of others")
        return None
    category = categories[rows[0]]
    turns = columns["orientation"][rows]
    usable = np.linalg.norm(turns, axis=1) > 1e-6
    notes.count("observations left out, no orientation", int((~usable).sum()), name)
    rows, turns = rows[usable], turns[usable]
    if len(rows) < 2:
        notes.count("tracks left out, fewer than two observations", name=name)
        return None
    centers = to_rdf(columns["center"][rows])
    return Track(
        id=name,
        kind=kind_of(category, notes),
        category=str(category),
        timestamps=times[rows],
        centers=centers,
        rotations=object_to_rdf(Rotation.from_quat(turns)),
        sizes=columns["size"][rows].astype(np.float32),
        moving=bool(np.linalg.norm(np.ptp(centers, axis=0)) > MOVED),
        extrapolation_us=EXTRAPOLATION_US,
    )
