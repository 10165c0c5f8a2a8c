"""What words in annotations mean: classes of objects, colours and styles of lane lines."""

from collections import Counter
from collections.abc import Iterable

from jaxvid.scenario.notes import Notes
from jaxvid.scenario.scene import Kind

KINDS: dict[str, Kind] = {
    **dict.fromkeys(("automobile", "other_vehicle", "vehicle", "car"), "Car"),
    **dict.fromkeys(("pedestrian", "person"), "Pedestrian"),
    **dict.fromkeys(("bicycle", "cyclist", "motorcycle", "rider"), "Cyclist"),
    **dict.fromkeys(
        ("bus", "truck", "heavy_truck", "train_or_tram_car", "trolley_bus", "trailer"), "Truck"
    ),
}
LINE_COLORS = ("WHITE", "YELLOW", "BLUE", "UNKNOWN")
LINE_STYLES = (
    *("SOLID_SINGLE", "DASHED_SINGLE", "SOLID_DOUBLE", "DASHED_DOUBLE"),
    *("SOLID_DASHED", "DASHED_SOLID", "LONG_DASHED_SINGLE", "LONG_DASHED_GROUP"),
    *("SHORT_DASHED_SINGLE", "DOT_DASHED_SINGLE", "DOT_DASHED_GROUP", "SOLID_GROUP"),
    *("DOT_SOLID_SINGLE", "DOT_SOLID_GROUP", "UNKNOWN"),
)
DEFAULT_LINE = "WHITE SOLID_SINGLE"


def kind_of(category: str | None, notes: Notes, capitalised: bool = False) -> Kind:
    """The class of an object; words outside the table become "Other" and are counted.

    capitalised: only "Automobile" will do, as in RDS-HQ, not "automobile" or "AUTOMOBILE".
    """
    word = str(category)
    known = word == word.lower().capitalize() or not capitalised
    kind = KINDS.get(word.lower()) if known else None
    if kind is None:
        notes.count("tracks of unknown class, drawn as Other", name=word)
    return kind or "Other"


def line_style(colors: Iterable | None, styles: Iterable | None, notes: Notes) -> str:
    """The most frequent "COLOR STYLE" over the points of a lane line; the first seen wins ties."""
    pairs = Counter(zip(map(str, colors or ()), map(str, styles or ()), strict=False))
    if not pairs:
        return DEFAULT_LINE
    color, style = (word.upper() for word in pairs.most_common(1)[0][0])
    if color not in LINE_COLORS or style not in LINE_STYLES:
        notes.count("lane lines of unknown colour or style", name=f"{color} {style}")
    color = color if color in LINE_COLORS else "UNKNOWN"
    return f"{color} {style if style in LINE_STYLES else 'UNKNOWN'}"
