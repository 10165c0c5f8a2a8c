"""Map elements of the RDS-HQ format: labels in JSON, one tar per kind. Every part is optional."""

from collections.abc import Iterator

import numpy as np

from jaxvid.scenario.categories import line_style
from jaxvid.scenario.elements import keep_elements, keep_points, light_state
from jaxvid.scenario.notes import Notes
from jaxvid.scenario.plausible import is_usable
from jaxvid.scenario.rdshq_tar import Sample
from jaxvid.scenario.scene import LaneLine, WorldBox

LINES = {  # our name: attribute folder, field, shape
    "road_boundaries": ("3d_road_boundaries", "road_boundaries.json", "polyline3d"),
    "wait_lines": ("3d_wait_lines", "wait_lines.json", "polyline3d"),
    "poles": ("3d_poles", "poles.json", "polyline3d"),
    "crosswalks": ("3d_crosswalks", "crosswalks.json", "surface"),
    "road_markings": ("3d_road_markings", "road_markings.json", "surface"),
}


def read_map(opened, notes: Notes) -> dict:
    """The map fields of `Scene`; opened: maps an attribute folder to its Sample or None.

    Raises ValueError for labels that cannot be read.
    """
    fields = {}
    for name, (folder, field, shape) in LINES.items():
        shapes = _shapes(opened(folder), (field,))
        fields[name] = keep_elements([_points(s, shape, w) for s, w in shapes], name, notes)
    fields["lane_lines"] = _lane_lines(opened("3d_lanelines"), notes)
    states = _light_states(opened("3d_traffic_lights_status"))
    for name in ("traffic_lights", "traffic_signs"):
        files = (f"3d_{name}.json", f"{name}.json")
        fields[name] = _boxes(opened(f"3d_{name}"), files, name, states, notes)
    if (lanes := opened("3d_lanes")) is not None:
        notes.undrawn["lanes"] += len(list(_shapes(lanes, ("lanes.json",))))
    return fields


def _lane_lines(sample: Sample | None, notes: Notes) -> tuple[LaneLine, ...]:
    lines = []
    for shape, where in _shapes(sample, ("lanelines.json",)):
        points = keep_points(_points(shape, "polyline3d", where), "lane_lines", notes)
        if len(points):
            words = (_words(shape, name, where) for name in ("colors", "styles"))
            lines.append(LaneLine(points, line_style(*words, notes)))
    return tuple(lines)


def _light_states(sample: Sample | None) -> dict[str, tuple[str, ...]]:
    """State per frame by feature id."""
    if sample is None:
        return {}
    where = f"{sample.path}: aggregated_states.json"
    try:
        lights = sample.json("aggregated_states.json")["traffic_light_states"].values()
        lists = {str(light["feature_id"]): list(light["state"] or ()) for light in lights}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: no traffic_light_states with feature_id and state") from error
    return {
        name: tuple(light_state(word, f"{where}: {name}") for word in words)
        for name, words in lists.items()
    }


def _boxes(sample, files, name: str, states: dict, notes: Notes) -> tuple[WorldBox, ...]:
    boxes = []
    for shape, where in _shapes(sample, files):
        box = cuboid(_points(shape, "cuboid3d", where))
        if box is None:
            notes.count(f"{name.replace('_', ' ')} left out, no box of eight corners")
            continue
        known = states.get(str(_attribute(shape, "feature_id", where).get("text")))
        boxes.append(WorldBox(*box, known if name == "traffic_lights" else None))
    return tuple(boxes)


def cuboid(corners):
    """Centre (3,), rotation (3, 3) and size (3,) of eight corners (8, 3), float32; None if flat.

    Corners in the order of drawing: 3, 1 and 4 are the neighbours of 0 along length, width and
    height. As upstream has it, the axes point from corner 0 to them.
    """
    if corners.shape != (8, 3) or not is_usable(corners):
        return None
    edges = corners[[3, 1, 4]] - corners[0]
    sizes = np.linalg.norm(edges, axis=1)
    if sizes.min() < 1e-6:
        return None
    x, y, _ = edges / sizes[:, None]
    y = y - x * (x @ y)
    length = np.linalg.norm(y)
    if length < 1e-6:
        return None
    y /= length
    rotation = np.stack([x, y, np.cross(x, y)], axis=1)
    return tuple(a.astype(np.float32) for a in (corners.mean(axis=0), rotation, sizes))


def _shapes(sample: Sample | None, files) -> Iterator[tuple[dict, str]]:
    """(shape3d, place in the file) of every label that is not marked empty."""
    if sample is None:
        return
    field = next((file for file in files if file in sample.fields), None)
    if field is None:
        raise ValueError(f"{sample.path} lacks {' and '.join(files)}")
    labels = sample.json(field).get("labels")
    if not isinstance(labels, list):
        raise ValueError(f"{sample.path}: {field} has no list of labels")
    for i, label in enumerate(labels):
        where = f"{sample.path}: {field}: label {i}"
        try:
            data = label["labelData"]
            if not data.get("emptyLabel"):
                yield data["shape3d"], where
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{where} has no labelData.shape3d") from error


def _points(shape: dict, kind: str, where: str) -> np.ndarray:
    """(n, 3) float64 from vertices [x, y, z] or {x, y, z}."""
    try:
        vertices = shape[kind]["vertices"]
        points = [[v[m] for m in "xyz"] if isinstance(v, dict) else v for v in vertices]
        return np.array(points, np.float64).reshape(len(points), 3)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: no {kind}.vertices of x, y, z") from error


def _attribute(shape: dict, name: str, where: str) -> dict:
    """The attribute of that name, {} where there is none."""
    try:
        return next((a for a in shape.get("attributes") or () if a.get("name") == name), {})
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{where}: the attributes are no list of named values") from error


def _words(shape: dict, name: str, where: str) -> list:
    """One word per point of a line, from the attribute of that name; [] where there is none."""
    found = _attribute(shape, name, where)
    try:
        return list((found.get("enumsList") or {}).get("enumsList") or ())
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{where}: {name} has no enumsList.enumsList of words") from error
