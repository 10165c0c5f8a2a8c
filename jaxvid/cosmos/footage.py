"""The videos of a sample: do they go together, and how many chunks do they last for."""

from collections.abc import Mapping

from jaxvid.core.video import VideoInfo
from jaxvid.cosmos import conditions
from jaxvid.cosmos.chunks import Layout, chunks_within
from jaxvid.cosmos.sample_config import Settings
from jaxvid.cosmos.spec import Spec

NEAR = 1e-3  # frames per second that are told apart


def paths_of(spec: Spec) -> dict[str, str]:
    """The files by key of the spec: controls first, and inputs that count."""
    views = spec.views.items()
    paths = {f"{name}.control_path": view.control_path for name, view in views}
    if any(spec.given):
        paths |= {f"{name}.input_path": view.input_path for name, view in views}
    return paths


def videos_of(spec: Spec, looked_at) -> dict[str, VideoInfo]:
    """What each of the files holds."""
    return {key: looked_at(path) for key, path in paths_of(spec).items()}


def thinning(spec: Spec, videos: Mapping[str, VideoInfo]) -> int:
    """Every so manieth frame of the files is taken; raises ValueError for rates that do not fit."""
    (first, info), *rest = videos.items()
    for key, other in rest:
        if abs(other.fps - info.fps) > NEAR:
            raise ValueError(
                f"{first} has {info.fps:g} frames per second, {key} {other.fps:g}: give files of "
                "one rate"
            )
    rate = round(info.fps) if abs(info.fps - round(info.fps)) < NEAR else info.fps
    if rate < 1 or rate % spec.fps:
        whole = [n for n in range(1, int(rate) + 1) if rate % n == 0]
        use = f"use fps={' or '.join(map(str, whole))}" if whole else "re-encode them to 10"
        raise ValueError(f"fps={spec.fps} does not divide the files' {rate:g}: {use}")
    return int(rate // spec.fps)


def check_alike(videos: Mapping[str, VideoInfo]) -> None:
    """Raises ValueError unless all have the size and the number of frames of the first."""
    (first, info), *rest = videos.items()
    way_out = "make them alike, or set sampling.mixed_videos=allow"
    for key, other in rest:
        if (other.height, other.width) != (info.height, info.width):
            raise ValueError(
                f"{first} is {info.width}x{info.height}, {key} {other.width}x{other.height}: "
                f"{way_out}, which brings all to one size"
            )
        if other.frames != info.frames:
            raise ValueError(
                f"{first} has {info.frames} frames, {key} {other.frames}: {way_out}, which takes "
                "what all controls have"
            )


def given_notes(settings: Settings, spec: Spec) -> list[str]:
    """What to say about the given frames.

    Raises:
      ValueError: they leave nothing of the first chunk to make, or latents cannot hold them.
    """
    stride = settings.vae.time_stride
    for name, count in zip(spec.views, spec.given, strict=True):
        if conditions.latent_count(count, stride) >= settings.sampling.latent_frames:
            raise ValueError(
                f"{name} begins with {count} given frames, a chunk has {settings.frames}: give 0, "
                f"1 or {1 + stride}"
            )
    if not any(spec.given):
        views = spec.views.values()
        idle = any(v.input_path not in (None, v.control_path) for v in views)
        return ["input videos are not looked at, since no frame is given"] if idle else []
    for count in set(spec.given):
        _check_held(settings, "num_conditional_frames", count)
    return [
        f"num_conditional_frames={count}: latents hold {held} of them, as upstream"
        for count in sorted(set(spec.given))
        if (held := _held(settings, count)) != count
    ]


def chunk_layout(
    settings: Settings, spec: Spec, videos: Mapping[str, VideoInfo], every: int
) -> tuple[Layout, list[str]]:
    """How the video is made of chunks, and what to say about it.

    Raises:
      ValueError: controls too short for a chunk, an overlap that latents cannot hold, or
        sampling.whole_controls for a sample that is one chunk.
    """
    controls = {key: info for key, info in videos.items() if key.endswith("control_path")}
    shortest = min(controls, key=lambda key: controls[key].frames)
    found, frames = controls[shortest].frames, settings.frames
    available = found // every
    if available < frames:
        at = f" of the {every * spec.fps} per second that it has" if every > 1 else ""
        raise ValueError(
            f"{shortest} has {found} frames, {available} at fps={spec.fps}, but a chunk takes "
            f"{frames}: give {frames * every}{at} or more"
        )
    notes = [f"every {every}. frame of the files is taken"] if every > 1 else []
    layout = _layout(settings, spec, available)
    if spec.enable_autoregressive and layout.chunks != spec.num_chunks:
        notes.append(f"num_chunks={spec.num_chunks}, the controls last for {layout.chunks}")
    if available > layout.total:
        notes.append(f"{available - layout.total} frames of the controls are left over")
    return layout, notes


def _layout(settings: Settings, spec: Spec, available: int) -> Layout:
    """Of so many frames of the controls; a number of chunks in config.overrides comes first."""
    frames, whole = settings.frames, settings.sampling.whole_controls
    if not spec.enable_autoregressive:
        if whole:
            raise ValueError(
                "sampling.whole_controls=True makes chunks, this sample is one: set "
                "enable_autoregressive=true, or sampling.whole_controls=False"
            )
        return Layout(frames)
    overlap = _overlap(settings, spec)
    possible = chunks_within(available, frames, overlap)
    all_of_them = whole and settings.overrides.num_chunks is None
    return Layout(frames, overlap, possible if all_of_them else min(spec.num_chunks, possible))


def _overlap(settings: Settings, spec: Spec) -> int:
    overlap, stride = spec.chunk_overlap, settings.vae.time_stride
    Layout(settings.frames, overlap)  # checks its range
    latent = conditions.latent_count(overlap, stride)
    if latent >= settings.sampling.latent_frames:
        raise ValueError(
            f"chunk_overlap={overlap} leaves nothing of a chunk of {settings.frames} frames to "
            f"make: use 1 or {1 + stride}"
        )
    _check_held(settings, "chunk_overlap", overlap)
    return overlap


def _held(settings: Settings, count: int) -> int:
    """Pixel frames of the latents that `count` given frames condition."""
    latent = conditions.latent_count(count, settings.vae.time_stride)
    return settings.vae.pixel_frames(latent) if latent else 0


def _check_held(settings: Settings, key: str, count: int) -> None:
    held, stride = _held(settings, count), settings.vae.time_stride
    if held != count and not settings.sampling.upstream_faults:
        raise ValueError(
            f"{key}={count} cannot be held in latents, which code 1, {1 + stride}, "
            f"{1 + 2 * stride}, ... frames: use {held} or {held + stride}"
        )


def check_inputs(spec: Spec, videos: Mapping[str, VideoInfo], every: int) -> None:
    """Raises ValueError for an input video that is too short; as many frames of each are read."""
    count = max(spec.given)
    for name in spec.views:
        key = f"{name}.input_path"
        if count and videos[key].frames < (count - 1) * every + 1:
            raise ValueError(
                f"{key} has {videos[key].frames} frames, {count} given ones at fps={spec.fps} "
                f"take {(count - 1) * every + 1}"
            )
