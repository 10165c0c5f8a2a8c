"""The samples of the spec files as requests of the runner, each checked on its own."""

import dataclasses
from collections.abc import Sequence

from jaxvid.core.probes import Probes
from jaxvid.core.views import IDS, VIEWS
from jaxvid.cosmos import footage, noise, outputs
from jaxvid.cosmos.multirun import Sample, samples
from jaxvid.cosmos.prompts import cut_notes
from jaxvid.cosmos.sample_config import Settings
from jaxvid.cosmos.spec import FIELDS, Entry, Spec, entries
from jaxvid.runs.names import apart, component
from jaxvid.runs.requests import Request


def requests(settings: Settings) -> list[Request]:
    """One request for each sample; one that cannot be made carries the reason.

    Raises:
      ValueError: see spec.entries and multirun.samples; a sample of spec files that is the only one
        and cannot be made.
    """
    return apart(_all(settings), "give it another name")


def _all(settings: Settings) -> list[tuple[str, Request]]:
    """The requests, each after the place where it is stated."""
    sampling, looked_at = settings.sampling, Probes(settings.sampling.probes)
    if settings.multirun.controls:
        found = samples(settings.multirun, settings.overrides)[: sampling.limit or None]
        looked_at.look(_files(found))
        return [(sample.name, _of_multirun(settings, sample, looked_at)) for sample in found]
    found = entries(sampling.specs, settings.overrides)[: sampling.limit or None]
    looked_at.look(_files(found))
    made = [(entry.place, _request(settings, entry, looked_at)) for entry in found]
    if len(made) == 1 and (error := made[0][1].error):
        raise ValueError(error)
    return made


def _files(found: Sequence[Entry | Sample]) -> list[str]:
    """The videos of all samples."""
    specs = [sample.spec for sample in found if sample.spec is not None]
    return [path for spec in specs for path in footage.paths_of(spec).values()]


def _request(settings: Settings, entry: Entry, looked_at) -> Request:
    spec, (options, error) = entry.spec, _tried(settings, entry, looked_at)
    if error or spec is None:
        return _failed(component(entry.name), {"safety": settings.safety.state()}, error)
    files = settings.sampling.files
    files = files or (("combined",) if spec.save_combined_views else ("views", "grid"))
    flat = settings.sampling.layout == "flat"
    stem = spec.name if flat else f"{spec.name}/{spec.name}"
    return Request(
        id=spec.name,
        seed=spec.seed,
        inputs=_inputs(spec),
        outputs=outputs.file_names(stem, list(spec.views), files),
        options=options,
    )


def _failed(name: str, options: dict, error: str) -> Request:
    return Request(name, 0, outputs={"arguments": f"{name}.json"}, options=options, error=error)


def _tried(settings: Settings, entry: Entry | Sample, looked_at) -> tuple[dict, str]:
    """The options of a sample, or why there are none."""
    if entry.spec is None:
        return {}, entry.error
    try:
        return _options(settings, entry.spec, looked_at), ""
    except ValueError as problem:
        return {}, f"{entry.name}: {problem}"


def _of_multirun(settings: Settings, sample: Sample, looked_at) -> Request:
    spec, (options, error) = sample.spec, _tried(settings, sample, looked_at)
    told = {"uid": sample.uid, "variant": sample.variant, "safety": settings.safety.state()}
    options = {**options, "notes": [*sample.notes, *options.get("notes", [])]}
    if error or spec is None:
        return _failed(sample.name, told, error)
    return Request(
        id=sample.name,
        seed=spec.seed,
        inputs=_inputs(spec),
        outputs=sample.outputs,
        options=options | told,
    )


def _inputs(spec: Spec) -> dict[str, str]:
    found = {"prompt": spec.prompt_path} if spec.prompt_path else {}
    for name, view in spec.views.items():
        found[f"{name}_control"] = view.control_path
        if view.input_path:
            found[f"{name}_input"] = view.input_path
    return found


def _options(settings: Settings, spec: Spec, looked_at) -> dict:
    """What the generator needs to know beside the files; raises ValueError."""
    if reason := settings.safety.refusal(spec.prompt):
        raise ValueError(reason)
    cuts = cut_notes(settings.text, [spec.prompt])
    if cuts and settings.sampling.long_prompts == "refuse":
        raise ValueError(f"{cuts[0]}; shorten it, or set sampling.long_prompts=cut")
    _check_ids(settings, spec)
    if not settings.sampling.upstream_faults:
        _check_idle(spec)
    videos = footage.videos_of(spec, looked_at)
    every = footage.thinning(spec, videos)
    if settings.sampling.mixed_videos == "refuse":
        footage.check_alike(videos)
    counts = dict(zip(spec.views, spec.given, strict=True))
    given = footage.given_notes(settings, spec)
    layout, notes = footage.chunk_layout(settings, spec, videos, every)
    if settings.sampling.upstream_ranks:
        noise.check_seeds(spec.seed, layout.chunks)
    footage.check_inputs(spec, videos, every)
    return {
        "fps": spec.fps,
        "prompt": spec.prompt,
        "views": counts,
        "given_from": _source(settings, spec),
        "every": every,
        "chunks": layout.chunks,
        "overlap": layout.overlap,
        "frames": layout.total,
        "spec": _scalars(spec),
        "safety": settings.safety.state(),
        "notes": [*given, *notes, *cuts],
    }


def _check_ids(settings: Settings, spec: Spec) -> None:
    known = settings.network.views
    if unknown := [name for name in spec.views if IDS[name] >= known]:
        raise ValueError(
            f"{unknown[0]} is view {IDS[unknown[0]]}, the network knows {known}: leave it out"
        )


def _check_idle(spec: Spec) -> None:
    """A view with an input video alone is left out by upstream without a word."""
    for name in VIEWS:
        if getattr(spec, name).input_path and name not in spec.views:
            raise ValueError(
                f"{name} has an input_path and no control_path: give its control, or leave the "
                "view out"
            )


def _scalars(spec: Spec) -> dict:
    """All values but paths, which mean nothing elsewhere."""
    found = {name: getattr(spec, name) for name in FIELDS if name not in (*VIEWS, "prompt_path")}
    counts = {name: view.num_conditional_frames_per_view for name, view in spec.views.items()}
    return found | {"per_view": counts}


def arguments(request: Request) -> dict:
    """What upstream saves as `{name}.json`: all arguments, with absolute paths."""
    options, inputs = request.options, request.inputs
    found = dict(options["spec"]) | {"prompt_path": inputs.get("prompt")}
    counts = found.pop("per_view")
    for name in VIEWS:
        found[name] = {
            "input_path": inputs.get(f"{name}_input"),
            "control_path": inputs.get(f"{name}_control"),
            "num_conditional_frames_per_view": counts.get(name, 0),
        }
    return found


def _source(settings: Settings, spec: Spec) -> str:
    """Which videos the given frames are of."""
    mistaken = spec.num_conditional_frames == 0 and settings.sampling.upstream_faults
    return "control" if mistaken else "input"


def result_settings(settings: Settings) -> dict:
    """What decides the contents of the outputs, for their fingerprint."""
    sampling = dataclasses.asdict(settings.sampling)
    elsewhere = ("specs", "limit", "whole_controls", "mixed_videos", "long_prompts", "layout")
    for field in (*elsewhere, "files", "guidance_passes", "probes"):
        del sampling[field]
    return {
        "mode": "cosmos",
        "sampling": sampling,
        "sampler": dataclasses.asdict(settings.sampler),
        "dtype": settings.models.dtype,
    }
