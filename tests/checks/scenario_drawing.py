"""Goldens of whole scenes: contents, geometry, and frames at the strict limits of upstream's.

Frames are those of Mesa's OpenGL. Folders named "..._truckfix" hold the documented look.
"""

import numpy as np
from imageio.v3 import imread
from safetensors.numpy import load_file
from scipy.spatial import cKDTree

from checks.scenario_reading import scene_contents
from jaxvid.scenario.draw import Renderer
from jaxvid.scenario.geometry import LIGHT_PATH, build_geometry
from jaxvid.scenario.palette import BOXES, UPSTREAM_BOXES

# Mean absolute difference (0..255), share of pixels off by more than 32, overlap of what is drawn.
STRICT = (0.10, 0.002, 0.999)
STRICT_SMALL = (0.30, 0.006, 0.998)  # for 320x180
SMALL_WIDTH = 640
FOREGROUND = 8
EXTRA_SEGMENTS = 2  # per dashed line, shorter than 0.1 mm, at the ends of dashes


def scene(case):
    found = scene_contents(case)
    check_classes(case)
    if (case.folder / "geometry.safetensors").exists():
        check_geometry(found, load_file(case.folder / "geometry.safetensors"))
    renderers = {}
    for frame in frames_of(case):
        look, size, samples = frame["look"], tuple(frame["hw"]), frame["msaa"]
        key = (look, size, samples)
        renderers[key] = renderers.get(key) or Renderer(found, look, *size, samples)
        image = renderers[key].frame(frame["camera"], frame["frame"])
        check_image(image, imread(case.folder / frame["file"])[..., :3], frame["file"])


def frames_of(case):
    yield from ({"look": "upstream"} | frame for frame in case.config["frames"])
    for path in sorted(case.folder.glob("*_truckfix/*.png")):
        camera, frame, _ = path.name.split(".")
        size = imread(path).shape[:2]
        file = str(path.relative_to(case.folder))
        yield {"file": file, "camera": camera, "frame": int(frame), "hw": size, "msaa": 4} | {
            "look": "documented"
        }


def check_image(actual, wanted, name):
    assert actual.shape == wanted.shape, name
    difference = np.abs(actual.astype(int) - wanted)
    drawn, expected = actual.max(-1) > FOREGROUND, wanted.max(-1) > FOREGROUND
    either = (drawn | expected).sum()
    overlap = (drawn & expected).sum() / either if either else 1.0
    far_off = (difference.max(-1) > 32).mean()
    limits = STRICT if wanted.shape[1] >= SMALL_WIDTH else STRICT_SMALL
    measured = (difference.mean(), far_off, overlap)
    close = measured[0] <= limits[0] and measured[1] <= limits[1] and measured[2] >= limits[2]
    assert close, (name, measured, limits)


def check_classes(case):
    names = {"Others": "Other"}
    for objects in case.json("objects.json").values():
        for item in objects.values():
            drawn = names.get(item["drawn_as"], item["drawn_as"])
            assert UPSTREAM_BOXES[item["object_type"]] == BOXES[drawn], item


def check_geometry(found, wanted):
    geometry = build_geometry(found, "upstream")
    check_lines(geometry.lines, wanted)
    lights = geometry.lights[:, LIGHT_PATH]
    np.testing.assert_allclose(lights, wanted["light_polylines"], atol=1e-3)
    colors = np.repeat(wanted["tri_item_color"], wanted["tri_item_ntri"], axis=0) * 255
    check_triangles(geometry.triangles, geometry.triangle_colors, wanted["tri_points"], colors)


def check_triangles(ours, our_colors, theirs, their_colors):
    """The same triangles in any order, with their corners in any order."""
    assert len(ours) == len(theirs)
    if len(ours):
        middles = cKDTree(ours.mean(axis=1))
        _, match = middles.query(theirs.mean(axis=1))
        assert len(set(match)) == len(ours)
        gaps = np.linalg.norm(ours[match][:, :, None] - theirs[:, None], axis=-1)
        np.testing.assert_allclose(gaps.min(axis=2), 0, atol=1e-3)
        np.testing.assert_allclose(our_colors[match], their_colors, atol=1e-3)


def check_lines(lines, wanted):
    starts = np.flatnonzero(lines.linked)
    style = np.concatenate([lines.colors, lines.widths[:, None]], axis=1)[starts]
    colors, widths = wanted["line_item_color"] * 255, wanted["line_item_width"][:, None]
    counts = wanted["line_item_nseg"]
    expected = np.repeat(np.concatenate([colors, widths], axis=1), counts, axis=0)
    ours, theirs = lines.segments, wanted["line_points"]
    if len(ours) != len(theirs):  # degenerate pieces at the ends of dashes come and go
        (ours, style), (theirs, expected) = (
            (s[long], c[long])
            for s, c in ((ours, style), (theirs, expected))
            for long in [np.linalg.norm(s[:, 1] - s[:, 0], axis=1) > 1e-4]
        )
        assert abs(len(starts) - counts.sum()) <= EXTRA_SEGMENTS * len(counts)
    np.testing.assert_allclose(style, expected, atol=1e-3)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


CHECKS = {"world_scenario/scene": scene}
