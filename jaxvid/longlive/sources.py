"""The files that list what to make: prompts line by line, and the JSONL of upstream's scripts.

| row of a .jsonl file | what is made |
|---|---|
| {"prompts": ["...", ...]} | each prompt takes over at the next of the switch frames |
| {"video_path": "...", "prompt1": "...", "prompt2": "..."} | the video, continued under prompt2 |

A row of the first kind may have its own "switch_frame_indices". Rows of both kinds may have a
"seed", "frames" (of the whole video, 4n + 1) and an "id", by which `names="ids"` names its video.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from jaxvid.longlive.sample_config import SampleConfig

INTERACTIVE = ("prompts", "switch_frame_indices")
CONDITIONAL = ("video_path", "prompt1", "prompt2")
OPTIONAL = {"seed": int, "frames": int, "id": str}


@dataclasses.dataclass(frozen=True)
class Item:
    """One video to make. With a clip there are two prompts: the first one is the clip's."""

    prompts: tuple[str, ...]
    switch_frames: tuple[int, ...] = ()  # latent frames, one per prompt after the first
    video: str = ""
    error: str = ""  # why it cannot be made
    seed: int | None = None  # None: that of the settings
    frames: int = 0  # pixel frames of the video; 0: as the settings say
    id: str = ""  # "": its number in the list
    place: str = dataclasses.field(default="sampling", compare=False)  # where it is stated


def items(sampling: SampleConfig) -> list[Item]:
    """What the settings ask for, in order.

    Raises:
      ValueError: the file cannot be read or lists nothing, or the one video stated in the
        settings is wrong.
    """
    if not (sampling.prompt or sampling.video):
        path = Path(sampling.prompts).expanduser()
        found = _of_file(path, sampling.switch_frames)
        return found[: sampling.limit or None]
    item = _checked(Item(sampling.prompt, sampling.switch_frames, sampling.video))
    if item.error:
        raise ValueError(f"sampling.prompt: {item.error}")
    return [item]


def read_lines(path: Path, field: str) -> list[tuple[int, str]]:
    """The numbered lines of a list, a .txt or .jsonl file that `field` names, ValueError if none.

    Blank lines of a .jsonl file say nothing; those of a .txt file are prompts, and empty.
    """
    if path.suffix not in (".txt", ".jsonl"):
        raise ValueError(f"{field}={path} has to be a .txt or .jsonl file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ValueError(f"{field}={path} cannot be read: {reason}") from error
    lines = list(enumerate(text.removesuffix("\n").split("\n"), 1)) if text else []
    if path.suffix == ".jsonl":
        lines = [(number, line) for number, line in lines if line.strip()]
    if not lines:
        raise ValueError(f"{field}={path} is empty: give at least one line")
    return lines


def _of_file(path: Path, switch_frames: Sequence[int]) -> list[Item]:
    lines = read_lines(path, "sampling.prompts")
    if path.suffix == ".txt" and switch_frames:
        raise ValueError(
            f"sampling.switch_frames={tuple(switch_frames)}: the lines of {path} have one prompt "
            "each; list several in a .jsonl file, or leave switch_frames empty"
        )
    return [_line(path, number, line, switch_frames) for number, line in lines]


def _line(path: Path, number: int, line: str, switch_frames: Sequence[int]) -> Item:
    try:
        if path.suffix == ".txt":
            item = Item((line.rstrip(),))
        else:
            item = _row(json.loads(line), path.parent, tuple(switch_frames))
        item = _checked(item)
    except json.JSONDecodeError as error:
        item = Item((), error=f"no JSON: {error}")
    except RecursionError:
        item = Item((), error="no JSON of ours: it is nested too deeply")
    except (ValueError, OSError) as error:
        item = Item((), error=str(error))
    place = f"{path} line {number}"
    return dataclasses.replace(item, place=place, error=item.error and f"{place}: {item.error}")


def _row(row, folder: Path, switch_frames: tuple[int, ...]) -> Item:
    """A row of a JSONL file; a relative video_path is relative to it, or else to where we are."""
    if not isinstance(row, dict):
        raise ValueError('a row has to be {"prompts": [...]} or {"video_path": ...}')
    known = CONDITIONAL if "video_path" in row else INTERACTIVE
    if unknown := sorted(set(row) - {*known, *OPTIONAL}):
        raise ValueError(f"unknown field {unknown[0]!r}; known: {', '.join((*known, *OPTIONAL))}")
    own = _optional(row)
    if known is CONDITIONAL:
        if missing := [name for name in CONDITIONAL if not isinstance(row.get(name), str)]:
            raise ValueError(f"the text {missing[0]!r} is missing")
        if not row["video_path"] or "\0" in row["video_path"]:
            raise ValueError(f"'video_path' is {row['video_path']!r}: give a video file")
        video = Path(row["video_path"]).expanduser()
        beside = folder / video
        video = beside if beside.exists() or not video.exists() else video
        return Item((row["prompt1"], row["prompt2"]), video=str(video), **own)
    prompts, switches = row.get("prompts"), row.get("switch_frame_indices", switch_frames)
    if not isinstance(prompts, list) or not all(isinstance(text, str) for text in prompts):
        raise ValueError('"prompts" has to be a list of texts')
    if not isinstance(switches, list | tuple) or not all(type(n) is int for n in switches):
        raise ValueError('"switch_frame_indices" has to be a list of latent frames')
    return Item(tuple(prompts), tuple(switches), **own)


def _optional(row: dict) -> dict:
    own = {name: row[name] for name in OPTIONAL if row.get(name) is not None}
    if type(own.get("id")) is int:
        own["id"] = str(own["id"])
    for name, value in own.items():
        if type(value) is not OPTIONAL[name]:
            kind = "a text" if OPTIONAL[name] is str else "a whole number"
            raise ValueError(f"{name!r} is {value!r}, it has to be {kind}")
    if own.get("frames", 1) < 1:
        raise ValueError(f"'frames' is {own['frames']}, it has to be at least 1")
    return own


def _checked(item: Item) -> Item:
    """The item with what is wrong with it."""
    count, switches = len(item.prompts), item.switch_frames
    error = ""
    if empty := [i for i, text in enumerate(item.prompts) if not text.strip()]:
        which = f"prompt {empty[0] + 1} of {count}" if count > 1 else "the prompt"
        error = f"{which} is empty: say what is to be seen"
    elif item.video and count != 2:
        error = (
            f"a video is continued with 2 prompts, its own and the next one, not {count}: "
            "e.g. sampling.prompt=('a','b')"
        )
    elif not item.video and count != len(switches) + 1:
        error = (
            f"{count} prompts need {max(count - 1, 0)} switch_frames, not {len(switches)}: set "
            "sampling.switch_frames, or switch_frame_indices of the row"
        )
    elif list(switches) != sorted({n for n in switches if n > 0}):
        error = f"switch_frames {list(switches)} have to rise, from 1 at least"
    if item.video:
        item = dataclasses.replace(item, switch_frames=())
    return dataclasses.replace(item, error=item.error or error)
