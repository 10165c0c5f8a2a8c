"""Colours, widths and patterns of control videos, as data.

The values are those of cosmos-transfer2.5 v1.5 (`world_scenario/color_scheme`: map and boxes "v3",
traffic lights "v2"), which its released checkpoints expect. Colours are 0..255.
"""

from typing import Literal, NamedTuple

from jaxvid.scenario.scene import Kind

Look = Literal["documented", "upstream"]
LOOKS = ("documented", "upstream")  # as its documents say, or as v1.5 really draws
Color = tuple[int, int, int]

DEPTH_MAX = 200.0  # metres: black from here on, and nothing is drawn
LINE_WIDTH = 12.0  # pixels at depth 0, for an image of any width
POLE_WIDTH = 5.0
EDGE_WIDTH = 4.0
COARSE_STEP = 0.8  # metres between the points of subdivided lines and outlines
LANE_STEP = 0.05  # the same for lane lines
LONE_POLE_HEIGHT = 3.0  # metres, of poles given by one point

ROAD_BOUNDARY: Color = (253, 1, 232)
WAIT_LINE: Color = (108, 179, 59)
POLE: Color = (183, 69, 177)
CROSSWALK: Color = (139, 93, 255)
ROAD_MARKING: Color = (20, 254, 185)
TRAFFIC_SIGN: Color = (8, 2, 255)
BOX_EDGE: Color = (200, 200, 200)
UNKNOWN_LIGHT: Color = (100, 100, 100)
TRAFFIC_LIGHTS: dict[str, Color] = {
    "red": (240, 50, 50),
    "yellow": (255, 200, 0),
    "green": (130, 240, 132),
    "unknown": UNKNOWN_LIGHT,
    "off": UNKNOWN_LIGHT,  # upstream has no colour and stops
}

OTHERS: tuple[Color, Color] = (53, 26, 20), (166, 136, 125)
BOXES: dict[Kind, tuple[Color, Color]] = {  # front, rear
    "Car": ((0, 46, 136), (126, 206, 255)),
    "Truck": ((204, 55, 0), (255, 192, 64)),
    "Pedestrian": ((148, 0, 62), (255, 124, 171)),
    "Cyclist": ((0, 80, 66), (102, 208, 198)),
    "Other": OTHERS,
}
UPSTREAM_BOXES = BOXES | {"Truck": OTHERS}  # its list of truck words lacks its own "Truck"


class LineStyle(NamedTuple):
    """patterns: one for a single line, two (on its left and right) for a double line."""

    color: Color
    patterns: tuple[str, ...]


WHITE, YELLOW = (255, 255, 255), (255, 255, 0)
LANE_LINES = {
    "WHITE SOLID_SINGLE": LineStyle(WHITE, ("solid",)),
    "WHITE LONG_DASHED_SINGLE": LineStyle(WHITE, ("long_dashed",)),
    "WHITE SHORT_DASHED_SINGLE": LineStyle(WHITE, ("short_dashed",)),
    "WHITE DOT_DASHED_SINGLE": LineStyle(WHITE, ("dot_dashed",)),
    "WHITE SOLID_GROUP": LineStyle(WHITE, ("solid", "solid")),
    "YELLOW SOLID_SINGLE": LineStyle(YELLOW, ("solid",)),
    "YELLOW LONG_DASHED_SINGLE": LineStyle(YELLOW, ("long_dashed",)),
    "YELLOW SOLID_GROUP": LineStyle(YELLOW, ("solid", "solid")),
    "YELLOW DASHED_SOLID": LineStyle(YELLOW, ("solid", "long_dashed")),
    "YELLOW SOLID_DASHED": LineStyle(YELLOW, ("long_dashed", "solid")),
    "YELLOW DOT_SOLID_SINGLE": LineStyle(YELLOW, ("dotted",)),
    "YELLOW DOT_SOLID_GROUP": LineStyle(YELLOW, ("dotted", "dotted")),
}
OTHER_LINE = LineStyle((181, 164, 71), ("solid",))  # all other styles, "VIRTUAL" lines among them


def box_colors(look: Look) -> dict[Kind, tuple[Color, Color]]:
    """Colours of the front and the rear, by class."""
    return UPSTREAM_BOXES if look == "upstream" else BOXES


def check_look(look: str) -> None:
    """Raises ValueError unless `look` is one of LOOKS."""
    if look not in LOOKS:
        raise ValueError(f"look={look!r} is unknown; use {' or '.join(LOOKS)}")
