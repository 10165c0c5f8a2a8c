"""Map elements of the ClipGT format. Every table is optional."""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from jaxvid.scenario.axes import object_to_rdf, to_rdf
from jaxvid.scenario.categories import line_style
from jaxvid.scenario.columns import Columns
from jaxvid.scenario.elements import keep_elements, keep_points, light_state
from jaxvid.scenario.notes import Notes
from jaxvid.scenario.plausible import is_usable
from jaxvid.scenario.scene import LaneLine, WorldBox

TABLES = {  # our name, table
    "road_boundaries": "road_boundary",
    "wait_lines": "wait_line",
    "poles": "pole",
    "crosswalks": "crosswalk",
    "road_markings": "road_marking",
}
UNDRAWN = {"lanes": "lane", "intersection areas": "intersection_area", "islands": "road_island"}
DEFAULT_SIZES = {"traffic_light": (0.6, 0.6, 1.0), "traffic_sign": (0.8, 0.3, 0.8)}  # l, w, h


def read_map(folder: Path, clip: str, frames: int, notes: Notes) -> dict:
    """The map fields of `Scene`, right-down-forward. Raises ValueError for damaged tables."""

    def opened(table: str) -> Columns | None:
        path = folder / f"{clip}.{table}.parquet"
        return Columns(path) if path.is_file() else None

    fields = {name: _lines(opened(table), table, name, notes) for name, table in TABLES.items()}
    fields["lane_lines"] = _lane_lines(opened("lane_line"), notes)
    fields["traffic_lights"] = _boxes(opened("traffic_light"), "traffic_light", frames, notes)
    fields["traffic_signs"] = _boxes(opened("traffic_sign"), "traffic_sign", frames, notes)
    for name, table in UNDRAWN.items():
        path = folder / f"{clip}.{table}.parquet"
        if path.is_file():
            notes.undrawn[name] += len(Columns(path))
    return fields


def _lines(table: Columns | None, column: str, name: str, notes: Notes):
    if table is None:
        return ()
    return keep_elements(map(to_rdf, table.polylines(f"{column}.location")), name, notes)


def _lane_lines(table: Columns | None, notes: Notes) -> tuple[LaneLine, ...]:
    if table is None:
        return ()
    old = not table.has("lane_line.line_rail") and table.has("lane_line.path")
    rails = table.polylines("lane_line.path" if old else "lane_line.line_rail")
    colors, styles = (
        table.words(name) if table.has(name) else [None] * len(table)
        for name in ("lane_line.colors", "lane_line.styles")
    )
    lines = []
    for rail, color, style in zip(rails, colors, styles, strict=True):
        points = keep_points(to_rdf(rail), "lane_lines", notes)
        if len(points):
            lines.append(LaneLine(points, line_style(color, style, notes)))
    return tuple(lines)


def _boxes(table: Columns | None, name: str, frames: int, notes: Notes):
    """Lights or signs; the optional member `state` gives a light one state for all frames."""
    if table is None or not len(table):
        return ()
    centers = table.vectors(f"{name}.center")
    turns = table.vectors(f"{name}.orientation", "xyzw")
    sizes = table.vectors(f"{name}.dimensions")
    usable = np.array([is_usable(row) for row in np.concatenate([centers, turns], axis=1)])
    usable &= ~(np.linalg.norm(turns, axis=1) <= 1e-6)
    what = name.replace("_", " ")
    notes.count(f"{what}s left out, no position or orientation", int((~usable).sum()))
    unsized = np.array([not is_usable(size) for size in sizes])
    notes.count(f"{what}s of default size, no dimensions", int((unsized & usable).sum()))
    sizes[unsized] = DEFAULT_SIZES[name]
    stated = name == "traffic_light" and table.has("traffic_light.state")
    states = table.words("traffic_light.state") if stated else [None] * len(table)
    boxes = []
    for i in np.flatnonzero(usable):
        quaternion = object_to_rdf(Rotation.from_quat(turns[i]))
        rotation = Rotation.from_quat(quaternion).as_matrix().astype(np.float32)
        state = None if states[i] is None else (light_state(states[i], str(table.path)),) * frames
        boxes.append(WorldBox(to_rdf(centers[i]), rotation, sizes[i].astype(np.float32), state))
    return tuple(boxes)
