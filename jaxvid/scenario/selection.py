"""Which clip and cameras are meant: both spellings, "all", and one name that changed."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxvid.scenario.notes import Notes, listing
from jaxvid.scenario.rig import underscored
from jaxvid.scenario.scene import CAMERAS

RENAMED = {"camera_front_tele_sat_30fov": "camera_front_tele_30fov"}  # upstream's documentation


def choose_clip(wanted: str | None, clips: Sequence[str], folder: Path) -> str:
    """The clip wanted, or the only one; raises ValueError if it is not there, or for a choice."""
    if wanted is not None and wanted not in clips:
        raise ValueError(f"{folder} has no clip {wanted}; there is: {listing(clips) or 'none'}")
    if wanted is None and len(clips) > 1:
        raise ValueError(f"{folder} holds {len(clips)} clips; choose one of: {listing(clips)}")
    return wanted or clips[0]


def current_names(present: Iterable[str]) -> dict[str, str]:
    """Maps names as used here to names in the files; a renamed camera gets its present name."""
    present = list(present)
    names = {name: name for name in present}
    for old, new in RENAMED.items():
        if old in names and new not in names:
            names[new] = names.pop(old)
    return names


def choose_cameras(wanted: Iterable[str] | None, present: Iterable[str], where: str, notes: Notes):
    """The cameras to load, with underscores and without repetition.

    wanted: names in either spelling, or None or "all": those of the usual seven that are there,
      with a warning for each that is not.
    present: names as `current_names` gives them.
    Raises ValueError, with the list of those present, for a name that is not there.
    """
    present = list(present)
    wanted = ["all"] if wanted is None else [wanted] if isinstance(wanted, str) else list(wanted)
    chosen: dict[str, None] = {}
    for word in (part.strip() for words in wanted for part in words.split(",") if part.strip()):
        name = underscored(word)
        if name == "all":
            chosen |= dict.fromkeys(_all_present(present, where, notes))
            continue
        name = name if name in present else RENAMED.get(name, name)
        if name not in present:
            raise ValueError(f"no camera {word} in {where}; there is: {_those(present)}")
        if "/" in name:
            raise ValueError(f"{where}: the camera {name} cannot name a folder; use no slashes")
        chosen[name] = None
    if not chosen:
        raise ValueError(f"no cameras named; {where} has: {_those(present)}")
    return list(chosen)


def _all_present(present: list[str], where: str, notes: Notes) -> list[str]:
    found = [name for name in CAMERAS if name in present]
    if not found:
        raise ValueError(
            f"{where} has none of the seven usual cameras; name some of: {_those(present)}"
        )
    for name in CAMERAS:
        if name not in found:
            notes.count("missing cameras of the usual seven", name=name)
    return found


def _those(present: list[str]) -> str:
    return listing(present, 20) or "none"
