"""Frames, FLOPs and memory of LongLive's videos, from shapes alone."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxvid.longlive.memory import memory_parts
from jaxvid.longlive.sample_config import Length, Settings
from jaxvid.runs import plan as plans
from jaxvid.runs.requests import Request
from jaxvid.wan import vae
from jaxvid.wan.dit import WanConfig


def plan(settings: Settings, wanted: Sequence[Request]) -> plans.Plan:
    """Cost of the requests that can be made."""
    wanted = [request for request in wanted if not request.error]
    lengths = [length_of(settings, request) for request in wanted]
    vae_flops = functools.partial(
        _vae_flops, settings.vae, settings.sampling.height, settings.sampling.width
    )
    tokens = _frame_tokens(settings)
    longest = max((length.made for length in lengths), default=settings.rollout.block)
    parts = memory_parts(settings, longest)
    return plans.Plan(
        frames=tuple(map(functools.partial(frames_of, settings), wanted, lengths)),
        flops=sum(
            _flops(settings, request, length, vae_flops)
            for request, length in zip(wanted, lengths, strict=True)
        ),
        memory_bytes=sum(parts.values()),
        available_bytes=plans.device_bytes(),
        compilations=_compilations(settings, wanted, lengths),
        tokens=sum(length.made for length in lengths) * tokens,
        memory_parts=parts,
    )


def length_of(settings: Settings, request: Request) -> Length:
    """How the video of a request is made up."""
    return settings.length(request.options["given"], request.options["latent_frames"])


def switch_starts(length: Length, switch_frames: Sequence[int]) -> list[int]:
    """The frames at which prompts take over: block starts, at most one prompt at each.

    As many as there are, since prompts due after the last block never take over.
    """
    waiting, found = list(switch_frames), []
    for start in length.starts:
        if waiting and start >= waiting[0]:
            waiting.pop(0)
            found.append(start)
    return found


def frames_of(settings: Settings, request: Request, length: Length) -> plans.Frames:
    """Pixel frames of a request, and in the note latent ones."""
    produced, made = length.pixels, length.pixel(length.made)
    notes = [f"{length.latent} latent"]
    if length.given:
        notes += _clip_notes(settings, request.options, length)
    blocks = f"{length.blocks} blocks of {length.block} latent frames"
    if made > produced and not settings.rollout.blank_tail:
        cut = f"{length.made - length.latent} latent ({made - produced} pixel) frames"
        blocks += f", of which the last {cut} are cut"
    notes.append(blocks)
    notes += _switch_notes(request.options, length)
    notes += [f"{text} of a prompt is cut" for text in request.options.get("cut", [])]
    return plans.Frames(request.id, produced, made, produced, "; ".join(notes))


def _clip_notes(settings: Settings, options: dict, length: Length) -> list[str]:
    clip, asked = options["clip"], settings.sampling.conditioning_frames
    used = length.pixel(length.given)
    note = f"{used} of {asked} frames of the clip are used, {length.given} latent"
    if length.given % length.block:
        note += f" (no multiple of {length.block}, which nothing needs)"
    if abs(clip["fps"] - settings.sampling.fps) > 0.01:
        note += f"; its {clip['fps']:g} frames per second count as {settings.sampling.fps:g}"
    return [note]


def _switch_notes(options: dict, length: Length) -> list[str]:
    asked = options["switch_frames"]
    found = switch_starts(length, asked)
    notes = [
        f"prompt {i + 2} from latent frame {start} (pixel frame {length.pixel(start)})"
        + (f" instead of {frame}" if frame != start else "")
        for i, (frame, start) in enumerate(zip(asked, found, strict=False))
    ]
    notes += [f"prompt {i + 2} never takes over" for i in range(len(found), len(asked))]
    return notes


def forward_flops(config: WanConfig, tokens: int, keys: int) -> float:
    """Of one pass over `tokens` that look at `keys`; multiplications and additions."""
    width = config.width
    projections = 8 * tokens * width**2 + 4 * tokens * width**2  # self q k v o, cross q o
    attended = 4 * tokens * keys * width + 4 * tokens * config.text_length * width
    return float(config.depth * (projections + attended + 4 * tokens * width * config.mlp))


def _flops(settings: Settings, request: Request, length: Length, vae_flops) -> float:
    """Of one video: passes over blocks, over the clip, after switches, and the VAE."""
    config, rollout, tokens = settings.network, settings.rollout, _frame_tokens(settings)
    window = length.made if rollout.window == -1 else rollout.window

    def passes(frames: int, end: int) -> float:
        keys = min(end, max(window, frames))
        return forward_flops(config, frames * tokens, keys * tokens)

    total = passes(length.given, length.given) if length.given else 0.0
    for start in length.starts:
        total += (len(rollout.steps) + 1) * passes(length.block, start + length.block)
    for start in switch_starts(length, request.options["switch_frames"]):
        total += passes(min(window, start), start)
    return total + vae_flops("decode") * length.made + vae_flops("encode") * length.given


def _frame_tokens(settings: Settings) -> int:
    height, width, _ = settings.latent_shape
    block = settings.rollout.block
    return math.prod(settings.network.grid(block, height, width)) // block


@functools.cache  # run_parallel plans for each clip
def _vae_flops(config: vae.VaeConfig, height: int, width: int, way: str) -> float:
    """Of one latent frame in the middle of a video."""
    batch, size = 1, (height, width, 3)
    params = vae.abstract_parameters(config)
    if way == "decode":
        latent = (*config.latent_size(height, width), config.latent_channels)
        step, first, shape = vae.decode_next, (batch, 1, *latent), (batch, 1, *latent)
    else:
        step, first = vae.encode_next, (batch, 1, *size)
        shape = (batch, config.time_stride, *size)
    array = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    past = jax.eval_shape(lambda p, x: step(config, p, x)[1], params, array(first))
    call = jax.jit(functools.partial(step, config)).trace(params, array(shape), past)
    return float((call.lower().cost_analysis() or {}).get("flops", 0.0))


def _compilations(settings: Settings, wanted, lengths: Sequence[Length]) -> int:
    """Denoising, decoding of the first and of later blocks; clips, and looking back, besides."""
    clips = {length.given for length in lengths if length.given}
    window = settings.rollout.window
    backs = {
        min(start, start if window == -1 else window + 1)
        for request, length in zip(wanted, lengths, strict=True)
        for start in switch_starts(length, request.options["switch_frames"])
    }
    return 3 * bool(wanted) + 3 * len(clips) + len(backs)
