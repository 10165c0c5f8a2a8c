"""The list of videos to make as requests of the runner, each checked on its own."""

import dataclasses

from jaxvid.core.probes import Probes
from jaxvid.core.video import VideoInfo
from jaxvid.longlive import models
from jaxvid.longlive.sample_config import LONGEST, Settings
from jaxvid.longlive.sources import Item, items
from jaxvid.runs.names import apart, component
from jaxvid.runs.requests import LONGEST_NAME, Request
from jaxvid.wan.tokenizer import Tokenizer

LONGEST_PROMPT = 100  # characters of a prompt in a file's name
ROOM = LONGEST_NAME - 30  # bytes of them, beside numbers and suffix


def requests(settings: Settings) -> list[Request]:
    """One request for each video and sample; one that cannot be made carries the reason.

    Raises:
      ValueError: see sources.items, and a single video of the config that cannot be made.
    """
    return apart(_all(settings), "give it another id or prompt, or set sampling.names=index")


def _all(settings: Settings) -> list[tuple[str, Request]]:
    """The requests, each after the place where it is stated."""
    tokens = models.tokenizer(settings)
    found, listed = [], items(settings.sampling)
    looked_at = Probes(settings.sampling.probes)
    looked_at.look(item.video for item in listed if item.video and not item.error)
    for index, item in enumerate(listed):
        options, error = {}, item.error
        if not error:
            try:
                options = _options(settings, tokens, item, looked_at)
            except ValueError as problem:
                error = str(problem)
        if error and not settings.listed:
            raise ValueError(error)
        for sample in range(settings.sampling.num_samples):
            request = _request(settings, index, sample, item, options, error)
            found.append((item.place, request))
    return found


def _request(settings: Settings, index: int, sample: int, item: Item, options: dict, error: str):
    name = file_name(settings, index, sample, item)
    return Request(
        id=f"{stem(index, item)}-{sample}",
        seed=settings.sampling.seed if item.seed is None else item.seed,
        inputs={"clip": item.video} if item.video and not error else {},
        outputs={"video": name},
        options={"fps": settings.sampling.fps, **_shown(item), **options},
        error=error,
    )


def _shown(item: Item) -> dict:
    """The prompts, under names that the gallery shows."""
    names = ("prompt1", "prompt2") if item.video else ("prompt",)
    return {**dict(zip(names, item.prompts, strict=False)), "prompts": list(item.prompts)}


def file_name(settings: Settings, index: int, sample: int, item: Item) -> str:
    """Of the video, in the output folder.

    Upstream's `rank` counts processes, which would change with their number: it is always 0.
    Its `seed` is the number of the sample.
    """
    names, kind = settings.sampling.names, settings.model_type
    if names == "index":
        return f"rank0-{index}-{sample}_{kind}.mp4"
    if names == "prompt":
        prompt = item.prompts[-1 if item.video else 0] if item.prompts else f"line {index + 1}"
        text = prompt[:LONGEST_PROMPT].translate(dict.fromkeys([*range(32), 127, *b"/\\"], "_"))
        if item.video:
            text = text.replace(" ", "_")
        text = text.encode()[:ROOM].decode(errors="ignore")
        return f"rank0-{text}-{sample}.mp4"
    return f"videos/{stem(index, item)}-{sample}.mp4"


def stem(index: int, item: Item) -> str:
    """Names what is made of an item: its own id, made fit for files, or its number."""
    return component(item.id) if item.id else f"video_{index:04d}"


def _options(settings: Settings, tokens: Tokenizer, item: Item, looked_at: Probes) -> dict:
    """What the generator needs to know of an item; raises ValueError if it cannot be made."""
    cuts = [tokens.cut(prompt) for prompt in item.prompts]
    for number, cut in enumerate(cuts, 1):
        if cut and settings.sampling.long_prompts == "refuse":
            which = f"prompt {number} of {len(cuts)}" if len(cuts) > 1 else "the prompt"
            raise ValueError(
                f"{which} is longer than {tokens.length} tokens, {_quoted(cut)} would be cut: "
                "shorten it, or set sampling.long_prompts=cut"
            )
    options, given = {"switch_frames": list(item.switch_frames)}, 0
    if item.video:
        info = looked_at(item.video)
        given = given_frames(settings, item.video, info)
        options["clip"] = {"frames": info.frames, "fps": info.fps}
    latent = settings.vae.latent_frames(item.frames) if item.frames else 0
    if latent > LONGEST:
        raise ValueError(f"frames={item.frames} are {latent} latent frames, more than {LONGEST}")
    length = settings.length(given, latent)
    settings.rollout.cache_window(length.made)
    settings.rollout.check_clip(given)
    options |= {"given": given, "latent_frames": length.latent, "frames": length.pixels}
    if any(cuts):
        options["cut"] = [_quoted(cut) for cut in cuts if cut]
    return options


def given_frames(settings: Settings, video: str, info: VideoInfo) -> int:
    """Latent frames of the clip that are taken; raises ValueError if it is too short."""
    asked = settings.sampling.conditioning_frames
    if info.frames < asked:
        raise ValueError(
            f"{video} has {info.frames} frames, sampling.conditioning_frames={asked}: "
            f"use at most {info.frames}"
        )
    return (asked - 1) // settings.vae.time_stride + 1


def _quoted(text: str, longest: int = 60) -> str:
    return repr(text if len(text) <= longest else f"{text[:longest]}...")


def result_settings(settings: Settings) -> dict:
    """What decides the contents of the outputs, for their fingerprint."""
    sampling = dataclasses.asdict(settings.sampling)
    listing = ("prompts", "prompt", "video", "switch_frames", "limit", "num_samples", "names")
    places = ("batch_size", "decoder", "long_prompts", "latent_frames", "pixel_frames", "probes")
    for field in (*listing, *places):  # of those that matter, options have what came out
        del sampling[field]
    return {
        "mode": "longlive",
        "sampling": sampling,
        "rollout": dataclasses.asdict(settings.rollout),
        "dtype": settings.models.dtype,
        "lora_alpha": settings.models.lora_alpha,
        "use_ema": settings.models.use_ema,
    }
