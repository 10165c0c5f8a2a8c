"""Geometry and looks of scenario rendering, on small scenes made by hand."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxvid.scenario import palette, views
from jaxvid.scenario.camera import make_camera
from jaxvid.scenario.draw import Renderer, render_frame
from jaxvid.scenario.geometry import build_geometry, build_lines, fill_polygon, link
from jaxvid.scenario.outlines import fade
from jaxvid.scenario.patterns import apply_pattern, as_segments, double, subdivide
from jaxvid.scenario.scene import LaneLine, Scene, SceneCamera, Track, WorldBox

FRONT = "camera_front_wide_120fov"
HEIGHT, WIDTH = 90, 160
ROAD = 1.5  # metres from the camera down to the road
BACKWARDS = Rotation.from_euler("y", 180, degrees=True)


def make_scene(**elements) -> Scene:
    """A camera at the origin of an RDF world, looking along the road; two frames."""
    model = make_camera((80, 45), (WIDTH, HEIGHT), (0, 90, 0, 0, 0, 0), backward=False)
    poses = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    camera = SceneCamera(FRONT, model, poses)
    times = np.array([0, 33_333])
    base = {"id": "toy", "format": "clipgt", "world": "rdf", "fps": 30.0, "timestamps": times}
    base |= {"ego_to_world": poses, "pose_times": times, "cameras": {FRONT: camera}}
    return Scene(**base | elements)


def make_track(name, kind, center, size=(4.0, 2.0, 1.5)) -> Track:
    """A box that drives away from the camera (body forward = world z, left = -x, up = -y)."""
    turn = Rotation.from_matrix([[0, -1, 0], [0, 0, -1], [1, 0, 0]]).as_quat()
    arrays = (np.array([0, 100_000]), np.tile(center, (2, 1)), np.tile(turn, (2, 1)))
    arrays = [*arrays, np.tile(size, (2, 1))]
    return Track(name, kind, kind.lower(), *(np.asarray(a) for a in arrays), True, 0)


def road_line(x, style="WHITE SOLID_SINGLE", start=4.0, stop=20.0) -> LaneLine:
    return LaneLine(np.array([(x, ROAD, start), (x, ROAD, stop)], np.float32), style)


def draw(scene, look="documented", height=HEIGHT, width=WIDTH):
    return render_frame(scene, FRONT, 0, look, height, width)


def test_subdivision_keeps_joints_once_and_steps_near_the_wanted_length():
    points = np.array([(0, 0, 0), (1, 0, 0), (1, 5, 0)], np.float32)
    fine = subdivide(points, 0.05)
    lengths = np.linalg.norm(np.diff(fine, axis=0), axis=1)
    assert (lengths > 0.05).all() and (lengths < 0.06).all()
    assert sum((p == points[1]).all() for p in fine) == 1
    np.testing.assert_allclose(lengths.sum(), 6, rtol=1e-6)
    assert len(subdivide(points, 2.5)) == 3  # a stretch under three steps stays whole


@pytest.mark.parametrize(
    ("pattern", "shares"),
    [
        ("solid", (1, 1)),
        ("long_dashed", (0.25, 0.25)),
        ("short_dashed", (0.46, 0.5)),
        ("dot_dashed", (0.08, 0.085)),
        ("dotted", (0.1, 0.1)),
    ],
)
def test_patterns_leave_the_right_share_of_a_line(pattern, shares):
    line = np.array([(0, 0, 0), (72, 0, 0)], np.float32)
    kept = apply_pattern(as_segments(subdivide(line, 0.05)), pattern)
    share = np.linalg.norm(kept[:, 1] - kept[:, 0], axis=1).sum() / 72
    assert shares[0] - 2e-3 <= share <= shares[1] + 2e-3
    assert len(apply_pattern(kept[:0], pattern)) == 0


def test_long_dashes_are_cut_at_their_ends():
    line = np.array([(0, 0, 0), (40, 0, 0)], np.float32)
    x = apply_pattern(as_segments(subdivide(line, 0.05)), "long_dashed")[:, :, 0]
    starts = x[np.append(True, np.diff(x[:, 0]) > 1), 0]
    ends = x[np.append(np.diff(x[:, 0]) > 1, True), 1]
    np.testing.assert_allclose(starts, [0, 12, 24, 36], atol=1e-4)
    np.testing.assert_allclose(ends, [3, 15, 27, 39], atol=1e-4)


def test_linked_points_give_the_segments_back():
    segments = np.random.default_rng(0).normal(size=(9, 2, 3)).astype(np.float32)
    segments[1:4, 0] = segments[0:3, 1]
    points, linked = link(segments)
    assert len(points) == 9 + 6  # six chains
    starts = np.flatnonzero(linked)
    again = np.stack([points[starts], points[starts + 1]], axis=1)
    np.testing.assert_array_equal(again, segments)


def test_double_lines_lie_side_by_side_only_in_the_documented_look():
    scene = make_scene(lane_lines=(road_line(0, "YELLOW SOLID_GROUP"),))
    documented = build_lines(scene, "documented").segments
    left, right = np.split(documented, 2)
    np.testing.assert_allclose(left[..., 0], -0.1, atol=1e-6)
    np.testing.assert_allclose(right[..., 0], 0.1, atol=1e-6)
    upstream = build_lines(scene, "upstream").segments
    np.testing.assert_allclose(*np.split(upstream, 2), atol=1e-6)


def test_double_lines_are_left_and_right_in_an_flu_world_too():
    segment = np.array([[(0, 0, 0), (1, 0, 0)]], np.float32)
    left, right = double(segment, (0, 1))
    assert (left[..., 1] > 0).all() and (right[..., 1] < 0).all()


@pytest.mark.parametrize(
    ("world", "look", "top"),
    [
        ("rdf", "documented", (2, ROAD - 3, 9)),
        ("rdf", "upstream", (2, ROAD, 12)),
        ("flu", "documented", (2, ROAD, 12)),
    ],
)
def test_a_pole_of_one_point_stands_upright_unless_upstream_lays_it_down(world, look, top):
    scene = make_scene(world=world, poles=(np.array([(2, ROAD, 9)], np.float32),))
    np.testing.assert_allclose(build_lines(scene, look).points[-1], top, atol=1e-6)


def test_upstream_has_no_poles_of_one_point_in_an_flu_world():
    scene = make_scene(world="flu", poles=(np.zeros((1, 3), np.float32),))
    assert len(build_lines(scene, "upstream").points) == 0


def test_poles_are_drawn_first_where_no_wider_line_comes_before_them():
    pole = np.array([(2, ROAD, 9), (2, -3, 9)], np.float32)
    boundary = np.array([(4, ROAD, 9), (4, ROAD, 20)], np.float32)
    elements = {"poles": (pole,), "lane_lines": (road_line(1),)}
    assert build_lines(make_scene(**elements), "upstream").widths[0] == palette.POLE_WIDTH
    elements |= {"road_boundaries": (boundary,)}
    widths = build_lines(make_scene(**elements), "upstream").widths
    assert widths[0] == palette.LINE_WIDTH and widths[-1] == palette.POLE_WIDTH


def test_flat_polygons_are_drawn_in_the_documented_look_and_counted_in_the_other():
    flat = np.array([(-1, ROAD, 5), (1, ROAD, 5), (1, ROAD, 9), (-1, ROAD, 9)], np.float32)
    line = np.array([(-1, ROAD, 5), (0, ROAD, 6), (1, ROAD, 7)], np.float32)
    scene = make_scene(crosswalks=(flat, line), road_markings=(flat,))
    documented = build_geometry(scene, "documented")
    assert documented.warnings == ("crosswalks left out, without area: 1",)
    assert len(documented.triangles) > 0
    upstream = build_geometry(scene, "upstream")
    assert len(upstream.triangles) == 0
    assert [w[-1] for w in upstream.warnings] == ["2", "1"]


def test_polygons_are_filled_to_their_hull():
    arrow = np.array([(0, 0, 0), (2, 1, 0), (0, 2, 0), (1, 1, 0)], np.float32)
    found = fill_polygon(arrow, (0, 1))
    sides = found[:, 1:] - found[:, :1]
    area = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2
    np.testing.assert_allclose(area, 2, atol=1e-5)
    closed = np.append(arrow, arrow[:1], axis=0)
    np.testing.assert_array_equal(fill_polygon(closed, (0, 1)), found)


def busy_scene() -> Scene:
    box = WorldBox(np.array([3, -2, 20.0]), BACKWARDS.as_matrix(), np.ones(3), ("red", "off"))
    square = np.array([(-2, ROAD, 12), (2, ROAD, 12), (2, ROAD, 14), (-2, ROAD, 14)], np.float32)
    return make_scene(
        tracks=(
            make_track("1", "Car", (-3, 0.7, 15)),
            make_track("2", "Truck", (3.2, 0, 13), (8.0, 2.5, 3.0)),
            make_track("3", "Pedestrian", (0.4, 0.6, 9.3), (0.6, 0.6, 1.7)),
        ),
        lane_lines=(road_line(-1.8), road_line(1.7, "WHITE LONG_DASHED_SINGLE"), road_line(5.3)),
        poles=(np.array([(4, ROAD, 18), (4.02, -4, 18.3)], np.float32),),
        crosswalks=(square, square + np.array([0.3, 0.01, 12], np.float32)),
        traffic_lights=(box,),
        traffic_signs=(dataclasses.replace(box, center=np.array([-3, -2, 20.0])),),
    )


def test_the_order_of_elements_does_not_matter_where_depths_differ():
    scene = busy_scene()
    turned = dataclasses.replace(
        scene,
        tracks=scene.tracks[::-1],
        lane_lines=scene.lane_lines[::-1],
        crosswalks=scene.crosswalks[::-1],
    )
    np.testing.assert_array_equal(draw(scene), draw(turned))


def test_a_full_turn_of_the_camera_changes_nothing():
    scene = busy_scene()
    camera = scene.cameras[FRONT]
    for axis in np.eye(3):
        quarter = np.eye(4)
        quarter[:3, :3] = Rotation.from_rotvec(axis * 2 * np.pi).as_matrix()
        poses = (camera.to_world @ quarter).astype(np.float32)
        moved = dataclasses.replace(camera, to_world=poses)
        again = dataclasses.replace(scene, cameras={FRONT: moved})
        difference = np.abs(draw(scene).astype(int) - draw(again))
        assert (difference > 0).mean() < 1e-3  # sines of 2 pi are 1e-16, not 0


def test_a_renderer_gives_the_same_images_whatever_it_drew_before():
    scene = busy_scene()
    renderer = Renderer(scene, "documented", HEIGHT, WIDTH)
    second, first = renderer.frame(FRONT, 1), renderer.frame(FRONT, 0)
    np.testing.assert_array_equal(first, draw(scene))
    np.testing.assert_array_equal(second, renderer.frame(FRONT, 1))
    assert (first != second).any()  # the light changed


def test_merging_short_steps_is_hardly_visible(monkeypatch):
    scene = busy_scene()
    merged = draw(scene, height=180, width=320).astype(int)
    monkeypatch.setattr(views, "MERGED", 1e-5)
    assert np.abs(merged - draw(scene, height=180, width=320)).mean() < 0.03


def test_only_upstream_cuts_images_of_some_sensors_short():
    model = make_camera((615, 400), (1231, 800), (0, 1e-3, 0, 0, 0, 0), backward=True)
    scene = make_scene(lane_lines=(road_line(0),))
    camera = dataclasses.replace(scene.cameras[FRONT], model=model)
    scene = dataclasses.replace(scene, cameras={FRONT: camera})
    whole, short = (draw(scene, look, 720, 1280) for look in ("documented", "upstream"))
    assert (whole.shape, short.shape) == ((720, 1280, 3), (720, 1279, 3))
    assert np.abs(whole[:, :-1].astype(int) - short).mean() < 1 < short.std()


def test_trucks_have_their_own_colour_in_the_documented_look():
    scene = make_scene(tracks=(make_track("1", "Truck", (0, 0.5, 10)),))
    for look, color in (("documented", (255, 192, 64)), ("upstream", (166, 136, 125))):
        expected = np.array(color) * fade(8.0)  # the rear of the box, towards the camera
        np.testing.assert_allclose(draw(scene, look)[50, 80], expected, atol=1)


def test_a_box_without_a_corner_in_the_image_is_not_drawn():
    far_too_near = make_track("1", "Truck", (0, 0, 0.5), (0.2, 9, 9))
    assert not draw(make_scene(tracks=(far_too_near,))).any()


def test_a_lane_line_runs_from_the_lower_edge_towards_the_horizon():
    image = draw(make_scene(lane_lines=(road_line(0, start=0.5, stop=150),)))[..., 0]
    rows = np.flatnonzero(image.max(axis=1))
    assert rows[0] in range(HEIGHT // 2 - 1, HEIGHT // 2 + 3) and rows[-1] == HEIGHT - 1
    widths = (image > 128).sum(axis=1)[rows[0] + 3 :]
    assert (abs(np.array([np.flatnonzero(r).mean() for r in image[rows]]) - 79.5) < 0.6).all()
    assert widths[-1] >= widths[0] > 0


def test_an_empty_scene_is_black():
    assert not draw(make_scene()).any()


def test_lights_that_are_off_are_grey_and_counted():
    scene = busy_scene()
    assert "off" in build_geometry(scene, "documented").warnings[0]
    renderer = Renderer(scene, "documented", HEIGHT, WIDTH)
    red, off = (renderer.frame(FRONT, i) for i in (0, 1))
    at = np.argwhere((red != off).any(-1))[0]
    assert red[tuple(at)].argmax() == 0 and len(set(off[tuple(at)])) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"look": "v1.5"}, "use documented or upstream"),
        ({"samples": 2}, "use one of"),
        ({"height": 0}, "no pixels"),
    ],
)
def test_wrong_settings_are_one_line(change, message):
    with pytest.raises(ValueError, match=message) as error:
        Renderer(make_scene(), **{"look": "documented"} | change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("camera", "index"), [("camera_left", 0), (FRONT, 2), (FRONT, -1)])
def test_a_missing_camera_or_frame_says_what_is_there(camera, index):
    with pytest.raises(ValueError, match=FRONT if camera != FRONT else "frames 0 to 1"):
        render_frame(make_scene(), camera, index, "documented", HEIGHT, WIDTH)
