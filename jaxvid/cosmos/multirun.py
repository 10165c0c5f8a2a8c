"""Every clip with every prompt: folders of control videos and of prompt files as samples.

Controls lie in `CAMERA/UID.mp4`, prompts in `UID.json`, an object from variant to text. CAMERA is a
name of core.views.CAMERAS, with or without `ftheta_` before it. Reimplements the multi-run tool of
a fork of Cosmos-Transfer2.5 as its documentation describes it (specification, 5.4).
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jaxvid.core.config import nearest
from jaxvid.core.views import CAMERAS, VIEWS
from jaxvid.cosmos.base_parameters import read_base
from jaxvid.cosmos.spec import Overrides, Spec, parse, read_prompt
from jaxvid.runs.names import pair_name

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
    views: tuple[str, ...] = ()  # those to make and to expect of a clip, e.g. rear; (): all seven
    # clips without some view or their prompts: made with the views they have, left out, or failed
    missing: Literal["run", "skip", "fail"] = "run"
    uids: tuple[str, ...] = ()  # only these clips

    def __post_init__(self):
        if not self.controls:
            if self.prompts or self.inputs or self.params or self.uids or self.views:
                raise ValueError("multirun.controls is empty: give the folder of control videos")
            return
        for field in ("controls", "prompts", "inputs"):
            path = getattr(self, field)
            found = bool(path) and Path(path).expanduser().is_dir()
            if not found and (path or field == "prompts"):
                raise ValueError(f"multirun.{field}={path!r} is not a folder")
        if unknown := [view for view in self.views if view not in VIEWS]:
            raise ValueError(f"multirun.views: {unknown[0]!r}{nearest(unknown[0], VIEWS)}")

    @property
    def cameras(self) -> dict[str, str]:
        """Views to their cameras, in the order of ids."""
        return {v: camera for v, camera in CAMERAS.items() if not self.views or v in self.views}

    def folder(self, field: str) -> Path:
        return Path(getattr(self, field)).expanduser().absolute()


@dataclasses.dataclass(frozen=True)
class Clip:
    """The control videos of one UID, by view, in the order of ids."""

    uid: str
    controls: dict[str, Path]
    missing: tuple[str, ...] = ()  # cameras without a video


class Prompt(NamedTuple):
    """One entry of a prompt file, or why there is none; `variant` is None for a whole file."""

    variant: str | None
    text: str = ""
    error: str = ""


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


def find_clips(config: MultirunConfig) -> dict[str, Clip]:
    """All clips of all camera folders, by UID, sorted.

    Raises:
      ValueError: there is no camera folder, or nothing in them; uids that are not there.
    """
    found, folders, controls = {}, 0, config.folder("controls")
    for view, camera in config.cameras.items():
        for folder in (controls / f"{PREFIX}{camera}", controls / camera):
            if not folder.is_dir():
                continue
            folders += 1
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() == ".mp4" and not path.name.startswith("."):
                    found.setdefault(path.stem, {}).setdefault(view, path)
    if not found:
        what = "no .mp4 in its camera folders" if folders else "no camera folder"
        example = f"{PREFIX}{next(iter(config.cameras.values()))}/UID.mp4"
        raise ValueError(f"multirun.controls={controls} has {what}: put videos at {example}")
    if unknown := [uid for uid in config.uids if uid not in found]:
        raise ValueError(f"multirun.uids: no camera folder has {unknown[0]}.mp4")
    return {uid: _clip(config, uid, found[uid]) for uid in sorted(found)}


def _clip(config: MultirunConfig, uid: str, controls: dict[str, Path]) -> Clip:
    missing = [camera for view, camera in config.cameras.items() if view not in controls]
    return Clip(uid, controls, tuple(missing))


def left_out(config: MultirunConfig) -> list[str]:
    """A line about each clip that `missing` leaves out."""
    if not config.controls or config.missing != "skip":
        return []
    clips = _chosen(config, find_clips(config))
    lacks = {clip.uid: lacking(config, clip) for clip in clips}
    return [f"{u} is left out (multirun.missing=skip): {why}" for u, why in lacks.items() if why]


def samples(config: MultirunConfig, overrides: Overrides) -> list[Sample]:
    """One sample for each clip and prompt; what cannot be run carries the reason.

    Raises:
      ValueError: see find_clips and base_parameters.read_base.
    """
    base, notes = read_base(config.params)
    clips, found = find_clips(config), []
    for clip in _chosen(config, clips):
        lack = lacking(config, clip)
        if lack and config.missing == "skip":
            continue
        template = _template(config, base, overrides, clip, notes)
        if lack and config.missing == "fail":
            prompts = [Prompt(None, error=lack)]
        else:
            prompts = read_prompts(config.folder("prompts") / f"{clip.uid}.json")
        for prompt in prompts:
            name = pair_name(clip.uid, prompt.variant, clips)
            found.append(_sample(template, name, prompt, overrides))
    return found


def _chosen(config: MultirunConfig, clips: dict[str, Clip]) -> list[Clip]:
    return [clip for uid, clip in clips.items() if not config.uids or uid in config.uids]


def lacking(config: MultirunConfig, clip: Clip) -> str:
    """What a clip does not have; "" if it has everything."""
    if clip.missing:
        return f"there is no {clip.uid}.mp4 in {', '.join(clip.missing)}"
    path = config.folder("prompts") / f"{clip.uid}.json"
    return "" if path.exists() else f"there is no prompt file {path}"


def read_prompts(path: Path) -> list[Prompt]:
    """All prompts of a file; what is wrong with one, or with all, is said in its place."""
    try:
        pairs = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=tuple)
    except FileNotFoundError:
        return [Prompt(None, error=f"there is no prompt file {path}")]
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"no JSON: {error}"
        return [Prompt(None, error=f"prompt file {path}: {reason}")]
    if not isinstance(pairs, tuple):
        what = 'it has to be an object, {"variant": "prompt", ...}'
        return [Prompt(None, error=f"prompt file {path}: {what}")]
    if not pairs:
        return [Prompt(None, error=f"prompt file {path} has no prompts")]
    counts = Counter(key for key, _ in pairs)
    return [
        Prompt(key, text, _wrong(f"prompt file {path}, {key[:60]!r}", key, text, counts[key]))
        for key, text in dict(pairs).items()
    ]


def _wrong(where: str, key: str, text, count: int) -> str:
    """What is wrong with an entry of a prompt file; "" for nothing."""
    if count > 1:
        return f"{where} occurs twice: keep one"
    if not isinstance(text, str):
        return f"{where} is not a text"
    if not key:
        return f"{where}: a variant needs a name"
    return "" if text.strip() else f"{where}: the prompt is empty"


def _template(
    config: MultirunConfig, base: dict, overrides: Overrides, clip: Clip, notes: Sequence[str]
) -> Sample:
    """What all samples of a clip share: the spec with a prompt in place of theirs."""
    views, told = _views(config, base, clip)
    value = {key: v for key, v in base.items() if key not in CAMERAS} | views
    sample = Sample("", clip.uid, "", notes=(*notes, *told))
    try:
        spec = parse(value | {"name": "clip", "prompt": "a prompt"}, Path(), overrides)
    except ValueError as error:
        return dataclasses.replace(sample, error=str(error))
    return dataclasses.replace(sample, spec=spec)


def _sample(template: Sample, name: str, prompt: Prompt, overrides: Overrides) -> Sample:
    """The sample of one prompt."""
    made = dataclasses.replace(template, name=name, variant=prompt.variant or "")
    error, spec = prompt.error or (template.error and f"{name}: {template.error}"), None
    if not error:
        try:
            text = read_prompt(prompt.text if overrides.prompt is None else overrides.prompt)
            spec = dataclasses.replace(template.spec, name=name, prompt=text)
        except ValueError as problem:
            error = f"{name}: {problem}"
    return dataclasses.replace(made, spec=spec, error=error)


def _views(config: MultirunConfig, base: dict, clip: Clip) -> tuple[dict, list[str]]:
    """The views of a clip as keys of a spec file, and what is missing of them."""
    views, told = {}, []
    if clip.missing:
        told.append(f"without {', '.join(clip.missing)}, of which there is no control video")
    for view, control in clip.controls.items():
        video = _input(config, view, clip.uid) if config.inputs else control
        if video is None:
            told.append(f"no input video of {CAMERAS[view]}: its control serves")
        paths = {"control_path": str(control), "input_path": str(video or control)}
        views[view] = base.get(view, {}) | paths
    return views, told


def _input(config: MultirunConfig, view: str, uid: str) -> Path | None:
    """The input video of a view, if it is there."""
    folders = [config.folder("inputs") / f"{prefix}{CAMERAS[view]}" for prefix in (PREFIX, "")]
    paths = [folder / f"{uid}{suffix}" for folder in folders for suffix in (".mp4", ".MP4")]
    return next((path for path in paths if path.is_file()), None)
