"""Spec files of multiview samples: upstream's JSON, key by key, with its validation.

A `.json` file holds one sample or a list of them, a `.jsonl` file one in each line. Relative paths
are relative to the file. A view is active if it has a `control_path`; the order of views in the
file means nothing.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from pathlib import Path

from jaxvid.core.config import build
from jaxvid.core.views import VIEWS
from jaxvid.runs.requests import LONGEST_NAME, OWN_FILES

ROOM = LONGEST_NAME - 40  # bytes of a name, beside what outputs add to it
OLD = (  # keys of upstream's earlier versions, which no longer mean anything
    "n_views", "resolution", "num_video_frames_loaded_per_view", "num_video_frames_per_view",
    "minimum_start_index", "output_dir",
)  # fmt: skip
LIMITS = (  # key, least and largest value
    ("guidance", 0, 7),
    ("control_weight", 0, 1),
    ("fps", 1, 1000),
    ("num_steps", 1, 1000),
    ("num_chunks", 1, None),
    ("chunk_overlap", 0, None),
    ("num_conditional_frames", 0, None),
)
PER_VIEW = (0, 1, 5)  # frames of a view that can be given to a long video


@dataclasses.dataclass(frozen=True)
class View:
    """The files of one camera."""

    input_path: str | None = None
    control_path: str | None = None
    num_conditional_frames_per_view: int = 0

    def __post_init__(self):
        count = self.num_conditional_frames_per_view
        if not 0 <= count <= max(PER_VIEW):
            raise ValueError(f"num_conditional_frames_per_view={count} is outside 0 to 5")


@dataclasses.dataclass(frozen=True)
class Spec:
    """One sample. Paths are absolute and there, `prompt` is the text itself."""

    name: str
    prompt: str | None = None
    prompt_path: str | None = None
    negative_prompt: str | None = None  # kept, and ignored as upstream does
    seed: int = 0
    guidance: int = 3  # see sample.guide
    num_conditional_frames: int = 1  # given pixel frames of each view: 0, 1 or 5
    control_weight: float = 1.0
    front_wide: View = View()
    cross_right: View = View()
    rear_right: View = View()
    rear: View = View()
    rear_left: View = View()
    cross_left: View = View()
    front_tele: View = View()
    fps: int = 10  # of the video; controls and inputs are thinned out to it
    num_steps: int = 35
    enable_autoregressive: bool = False
    num_chunks: int = 2
    chunk_overlap: int = 1
    save_combined_views: bool = True

    def __post_init__(self):
        for field, least, most in LIMITS:
            value = getattr(self, field)
            if value < least or (most is not None and value > most):
                limits = f"at least {least}" if most is None else f"from {least} to {most}"
                raise ValueError(f"{field}={value} must be {limits}")
        if not _is_name(self.name):
            raise ValueError(
                f"name={self.name!r} has to be a file name: printable, without / and \\, no dot "
                f"first, at most {ROOM} bytes long, and none of {', '.join(OWN_FILES)}"
            )

    @functools.cached_property
    def views(self) -> dict[str, View]:
        """The active ones, in the order of their ids."""
        found = {name: getattr(self, name) for name in VIEWS}
        return {name: view for name, view in found.items() if view.control_path}

    @property
    def given(self) -> tuple[int, ...]:
        """Pixel frames of each active view's input video that the first chunk begins with."""
        per_view = tuple(v.num_conditional_frames_per_view for v in self.views.values())
        if self.enable_autoregressive and any(per_view):
            return per_view
        return (self.num_conditional_frames,) * len(per_view)

    def arguments(self) -> dict:
        """All of it as JSON, for `{name}.json`."""
        return dataclasses.asdict(self)


FIELDS = {field.name: field.type for field in dataclasses.fields(Spec)}


@dataclasses.dataclass(frozen=True)
class Overrides:
    """Values that replace those of every sample; None keeps them."""

    prompt_path: str | None = None  # relative to each spec file; a `prompt` in the file wins
    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    guidance: int | None = None
    num_conditional_frames: int | None = None
    control_weight: float | None = None
    fps: int | None = None
    num_steps: int | None = None
    enable_autoregressive: bool | None = None
    num_chunks: int | None = None
    chunk_overlap: int | None = None
    save_combined_views: bool | None = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """One sample of a file, or why there is none."""

    name: str
    place: str  # where it is stated
    spec: Spec | None = None
    error: str = ""


def entries(files: Sequence[str], overrides: Overrides = Overrides()) -> list[Entry]:
    """The samples of all files, in order; each is checked on its own.

    Raises:
      ValueError: a file that cannot be read or is no JSON.
    """
    found = []
    for file in files:
        path = Path(file).expanduser().absolute()
        for where, value in _contents(path):
            found.append(_entry(where, len(found), value, path.parent, overrides))
    return found


def _contents(path: Path) -> list[tuple]:
    """(place, object) of a file; a line of a .jsonl file that is no JSON is a ValueError.

    Empty lines hold no sample.
    """
    if path.suffix not in (".json", ".jsonl"):
        raise ValueError(f"spec file {path} has to end in .json or .jsonl")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ValueError(f"spec file {path} cannot be read: {reason}") from error
    if path.suffix == ".json":
        value = _loads(text, path.name)
        if not isinstance(value, list):
            return [(path.name, value)]
        return [(f"{path.name} item {i}", v) for i, v in enumerate(value, 1)]
    return [
        (f"{path.name} line {i}", _loads(line, f"{path.name} line {i}"))
        for i, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]


def _loads(text: str, where: str):
    try:
        return json.loads(text)
    except RecursionError:
        return ValueError(f"{where} is no JSON that can be read: it is nested too deep")
    except ValueError as error:  # of the syntax, or of a number with thousands of digits
        return ValueError(f"{where} is no JSON that can be read: {error}")


def _entry(where: str, index: int, value, folder: Path, overrides: Overrides) -> Entry:
    name = value.get("name") if isinstance(value, dict) else None
    name = name if isinstance(name, str) and name else f"sample_{index:04d}"
    try:
        if isinstance(value, ValueError):
            raise value
        return Entry(name, where, parse(value, folder, overrides))
    except ValueError as error:
        text = str(error)
        return Entry(name, where, error=text if text.startswith(where) else f"{where}: {text}")


def parse(value, folder: Path, overrides: Overrides = Overrides()) -> Spec:
    """One sample of a spec file in `folder`, checked.

    Raises:
      ValueError: in one line that names the key.
    """
    if not isinstance(value, dict):
        raise ValueError(f"a sample is a JSON object, this is {type(value).__name__}")
    if old := [key for key in OLD if key in value]:
        raise ValueError(f"{old[0]} is a key of older versions and means nothing now: leave it out")
    given = {n: v for n, v in dataclasses.asdict(overrides).items() if v is not None}
    if "prompt" not in given and value.get("prompt"):
        given.pop("prompt_path", None)
    spec = build(Spec, {n: as_field(n, v) for n, v in (value | given).items()}, "spec")
    changes = {}
    if spec.prompt_path is not None:
        changes["prompt_path"] = _file("prompt_path", spec.prompt_path, folder)
    changes["prompt"] = read_prompt(spec.prompt, changes.get("prompt_path"))
    for name in VIEWS:
        changes[name] = _located(name, getattr(spec, name), folder)
    spec = dataclasses.replace(spec, **changes)
    check_views(spec)
    return spec


def as_field(name: str, value):
    """A value of the file as one of Spec; ValueError for a view that is no object.

    Whole numbers written as 3.0 are taken, as upstream does.
    """
    if name in VIEWS and not isinstance(value, dict):
        raise ValueError(f"{name} has to be an object with input_path and control_path")
    if FIELDS.get(name) is int and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _located(name: str, view: View, folder: Path) -> View:
    paths = {n: getattr(view, n) for n in ("input_path", "control_path")}
    found = {n: _file(f"{name}.{n}", p, folder) for n, p in paths.items() if p is not None}
    return dataclasses.replace(view, **found)


def _file(key: str, path: str, folder: Path) -> str:
    try:
        found = (folder / Path(path).expanduser()).resolve()
        there = found.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a zero byte
        raise ValueError(f"{key}={path[:100]!r} is no path of a file: {error}"[:300]) from error
    if not path or not there:
        raise ValueError(f"{key}={found}: there is no such file")
    return str(found)


def read_prompt(text: str | None, path: str | None = None) -> str:
    """The text, or that of the file; ValueError for one that says nothing or is none."""
    if not text and path is not None:
        try:
            text = Path(path).read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"prompt_path={path} cannot be read: {error}") from error
    if not text or not text.strip():
        raise ValueError("there is no prompt: give prompt, or prompt_path with a text in it")
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError(f"prompt={text[:40]!r} holds half a surrogate pair, which is no character")
    return text


def _is_name(name: str) -> bool:
    plain = name.isprintable() and not re.search(r"^\.|[/\\]", name) and name not in OWN_FILES
    return bool(name) and plain and len(name.encode()) <= ROOM


def check_views(spec: Spec) -> None:
    """Raises ValueError for views and given frames that do not go together."""
    if not spec.views:
        raise ValueError(f"no view is active: give a control_path to one of {', '.join(VIEWS)}")
    counts = {n: v.num_conditional_frames_per_view for n, v in spec.views.items()}
    if spec.enable_autoregressive and any(counts.values()):
        for name, count in counts.items():
            if count not in PER_VIEW:
                raise ValueError(
                    f"{name}.num_conditional_frames_per_view={count}: a long video takes 0, 1 or 5"
                )
        if not all(counts.values()):
            zero = next(name for name, count in counts.items() if not count)
            raise ValueError(
                f"{zero}.num_conditional_frames_per_view is 0, that of other views is not: give "
                "all active views 0, or all 1 or 5"
            )
    missing = [n for n, v in spec.views.items() if not v.input_path]
    if any(spec.given) and missing:
        raise ValueError(
            f"{', '.join(missing)}: input_path is missing, but the video begins with "
            f"{max(spec.given)} given frames of each view: give it, or num_conditional_frames=0"
        )
