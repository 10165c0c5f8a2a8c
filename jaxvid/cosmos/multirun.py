"""Every clip with every prompt: folders of control videos and of prompt files as samples.

Controls lie in `CAMERA/UID.mp4`, prompts in `UID.json`, an object from variant to text. CAMERA is a
name of core.views.CAMERAS, with or without `ftheta_` before it. Reimplements the multi-run tool of
a fork of Cosmos-Transfer2.5 as its documentation describes it (specification, 5.4).
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from jaxvid.core.views import CAMERAS
from jaxvid.cosmos.base_parameters import read_base
from jaxvid.cosmos.spec import Overrides, Spec, parse
from jaxvid.runs.names import component, pair_names

PREFIX = "ftheta_"
FILES = {  # output of the generator to its name in the folder of a run
    "arguments": "output.json",
    "combined": "output.mp4",
    "around": "output_grid.mp4",
    "control_grid": "output_with_control_grid.mp4",
}


@dataclasses.dataclass(frozen=True)
class MultirunConfig:
    """Where clips and prompts are."""

    controls: str = ""  # folder of CAMERA/UID.mp4; "": spec files say what to make
    prompts: str = ""  # folder of UID.json
    inputs: str = ""  # folder of input videos like that of the controls; "": the controls serve
    params: str = ""  # base parameters, a JSON spec without views; "": the defaults
    missing: Literal["run", "skip"] = "run"  # clips without some camera: with what they have
    uids: tuple[str, ...] = ()  # only these clips

    def __post_init__(self):
        if not self.controls:
            if self.prompts or self.inputs or self.params or self.uids:
                raise ValueError("multirun.controls is empty: give the folder of control videos")
            return
        for field in ("controls", "prompts", "inputs"):
            path = getattr(self, field)
            found = bool(path) and Path(path).expanduser().is_dir()
            if not found and (path or field == "prompts"):
                raise ValueError(f"multirun.{field}={path!r} is not a folder")


@dataclasses.dataclass(frozen=True)
class Clip:
    """The control videos of one UID, by view, in the order of ids."""

    uid: str
    controls: dict[str, Path]

    @property
    def missing(self) -> list[str]:
        return [CAMERAS[view] for view in CAMERAS if view not in self.controls]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One clip with one prompt; `variant` is "" if the prompt file cannot be read."""

    name: str  # of the output folder
    uid: str
    variant: str
    spec: Spec | None = None
    error: str = ""
    notes: tuple[str, ...] = ()

    @property
    def outputs(self) -> dict[str, str]:
        return {output: f"{self.name}/{file}" for output, file in FILES.items()}


def find_clips(controls: Path) -> list[Clip]:
    """All UIDs of all camera folders, sorted.

    Raises:
      ValueError: there is no camera folder, or nothing in them.
    """
    found, folders = {}, 0
    for view, camera in CAMERAS.items():
        for folder in (controls / f"{PREFIX}{camera}", controls / camera):
            if not folder.is_dir():
                continue
            folders += 1
            for path in folder.iterdir():
                if path.suffix == ".mp4" and not path.name.startswith("."):
                    found.setdefault(path.stem, {}).setdefault(view, path)
    if not found:
        what = "no .mp4 in its camera folders" if folders else "no camera folder"
        example = f"{PREFIX}{CAMERAS['front_wide']}/UID.mp4"
        raise ValueError(f"multirun.controls={controls} has {what}: put videos at {example}")
    order = {view: number for number, view in enumerate(CAMERAS)}
    return [
        Clip(uid, dict(sorted(found[uid].items(), key=lambda item: order[item[0]])))
        for uid in sorted(found)
    ]


def samples(config: MultirunConfig, overrides: Overrides) -> list[Sample]:
    """One sample for each clip and prompt; what cannot be run carries the reason.

    Raises:
      ValueError: see find_clips and base_parameters.read_base; uids that are not there.
    """
    base, notes = read_base(config.params)
    clips = find_clips(Path(config.controls).expanduser().absolute())
    if unknown := [uid for uid in config.uids if uid not in {clip.uid for clip in clips}]:
        raise ValueError(f"multirun.uids: no camera folder has {unknown[0]}.mp4")
    chosen = [clip for clip in clips if not config.uids or clip.uid in config.uids]
    found = [(clip, *item) for clip in chosen for item in _prompts(config, clip)]
    whole = [(clip.uid, variant) for clip, variant, _, _ in found if variant]
    names, known = dict(zip(whole, pair_names(whole), strict=True)), {}
    return [
        _sample(
            config, base, overrides, clip, variant, text, error, notes,
            names.get((clip.uid, variant)) or component(clip.uid),
            known,
        )
        for clip, variant, text, error in found
    ]  # fmt: skip


def _prompts(config: MultirunConfig, clip: Clip) -> Iterator[tuple[str, str, str]]:
    """(variant, text, error) of each prompt of a clip."""
    path = Path(config.prompts).expanduser().absolute() / f"{clip.uid}.json"
    if config.missing == "skip" and clip.missing:
        yield "", "", f"skipped, {clip.uid}.mp4 is missing of {', '.join(clip.missing)}"
        return
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=list)
    except FileNotFoundError:
        yield "", "", f"there is no prompt file {path}"
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"no JSON: {error}"
        yield "", "", f"prompt file {path}: {reason}"
        return
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        yield "", "", f'prompt file {path}: it has to be an object, {{"variant": "prompt", ...}}'
        return
    yield from _checked(path, pairs)


def _checked(path: Path, pairs: list[tuple]) -> Iterator[tuple[str, str, str]]:
    if not pairs:
        yield "", "", f"prompt file {path} has no prompts"
    seen = set()
    for key, text in pairs:
        if key in seen:
            continue
        seen.add(key)
        where = f"prompt file {path}, {key[:60]!r}"
        if sum(key == other for other, _ in pairs) > 1:
            yield key, "", f"{where} occurs twice: keep one"
        elif not isinstance(text, str):
            yield key, "", f"{where} is {type(text).__name__}, not a text"
        elif not key:
            yield " ", "", f"{where}: a variant needs a name"
        else:
            yield key, text, "" if text.strip() else f"{where}: the prompt is empty"


def _sample(
    config, base, overrides, clip: Clip, variant, text, error, notes, name, known
) -> Sample:
    """known: of each clip, the spec of its first prompt, and what was to be said about it."""
    spec, told = None, ()
    if not error:
        try:
            if clip.uid not in known:
                views, more = _views(config, base, clip)
                value = {n: v for n, v in base.items() if n not in CAMERAS} | views
                spec = parse(value | {"name": name, "prompt": text}, Path(), overrides)
                known[clip.uid] = spec, (*notes, *more)
            spec, told = known[clip.uid]
            prompt = text if overrides.prompt is None else spec.prompt
            spec = dataclasses.replace(spec, name=name, prompt=prompt)
        except ValueError as problem:
            spec, error = None, f"{name}: {problem}"
    return Sample(name, clip.uid, variant, spec, error, tuple(told))


def _views(config: MultirunConfig, base: dict, clip: Clip) -> tuple[dict, list[str]]:
    """The views of a clip as keys of a spec file, and what is missing of them."""
    views, told = {}, []
    if clip.missing:
        told.append(f"without {', '.join(clip.missing)}, of which there is no control video")
    for view, control in clip.controls.items():
        video = _input(Path(config.inputs), view, clip.uid) if config.inputs else control
        if video is None:
            told.append(f"no input video of {CAMERAS[view]}: its control serves")
        paths = {"control_path": str(control), "input_path": str(video or control)}
        views[view] = base.get(view, {}) | paths
    return views, told


def _input(folder: Path, view: str, uid: str) -> Path | None:
    """The input video of a view, if it is there."""
    camera = CAMERAS[view]
    paths = [folder.expanduser().absolute() / f"{p}{camera}" / f"{uid}.mp4" for p in (PREFIX, "")]
    return next((path for path in paths if path.is_file()), None)
