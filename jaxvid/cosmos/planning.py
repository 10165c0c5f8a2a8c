"""What a multiview run is going to do and to cost, from shapes alone."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxvid.cosmos import model, sample
from jaxvid.cosmos.chunks import Layout
from jaxvid.cosmos.dit import HINT_LAYERS, DitConfig
from jaxvid.cosmos.sample_config import Settings
from jaxvid.cosmos.setup import passes_together, sampling_mesh
from jaxvid.cosmos.text import TOKENS
from jaxvid.runs import plan as plans
from jaxvid.runs.progress import clock
from jaxvid.runs.requests import Request
from jaxvid.wan import vae

RATES = (790e12, 400e12)  # FLOP/s of a device that times are told for: an H200's best, and usual
PASSES = {"guided": 2, "plain": 1, "reused": 0}  # of a step
LIVE = 10  # arrays of all tokens that live at a time, beside the hints, about
OTHER = 2**28  # bytes of programs and latents
WIDEST = 12  # buffers of the VAE's largest activation that live at a time, about


def plan(settings: Settings, wanted: Sequence[Request]) -> plans.Plan:
    """Cost of the requests that can be made."""
    wanted = [request for request in wanted if not request.error]
    mesh = sampling_mesh(settings)
    pieces = {len(r.options["views"]) for r in wanted}
    coding = functools.cache(functools.partial(_vae_flops, settings)) if wanted else None
    parts = memory_parts(settings, mesh, max(pieces, default=1))
    flops = [request_flops(settings, request, coding) for request in wanted]
    return plans.Plan(
        frames=tuple(
            frames_of(settings, mesh, request, cost)
            for request, cost in zip(wanted, flops, strict=True)
        ),
        flops=sum(flops),
        memory_bytes=sum(parts.values()),
        memory_parts=parts,
        available_bytes=plans.device_bytes(),
        compilations=_compilations(settings, wanted, len(pieces)),
        tokens=sum(r.options["chunks"] * tokens_of(settings, len(r.options["views"]))
                   for r in wanted),
    )  # fmt: skip


def frames_of(settings: Settings, mesh: Mesh, request: Request, flops: float) -> plans.Frames:
    """Frames of one view, and in the note all that happens."""
    options = request.options
    layout = Layout(settings.frames, options["overlap"], options["chunks"])
    views = options["views"]
    steps = _steps(settings, request)
    calls = passes_of(settings, request)
    spread = " x ".join(f"{axis} {n}" for axis, n in mesh.shape.items() if n > 1) or "one device"
    passes = "together" if passes_together(settings, mesh) else "one after the other"
    notes = [
        f"{len(views)} views ({', '.join(views)})",
        f"{layout.chunks} chunk{'s' * (layout.chunks > 1)} of {layout.frames} frames" + (
            f" that share {layout.overlap}" if layout.chunks > 1 else ""
        ),
        f"{tokens_of(settings, len(views))} tokens over {spread}",
        f"{len(steps)} steps, {calls} passes a chunk, {passes}",
        _given_note(options),
        ", ".join(
            f"{clock(flops / rate / mesh.size)} at {plans.si(rate)}FLOP/s per device"
            for rate in RATES
        ),
        *options["notes"],
    ]  # fmt: skip
    return plans.Frames(request.id, layout.total, layout.total, layout.total, "; ".join(notes))


def _given_note(options: dict) -> str:
    counts = set(options["views"].values())
    if counts == {0}:
        return "no frame is given"
    return f"given frames: {', '.join(map(str, sorted(counts)))} of each {options['given_from']}"


def tokens_of(settings: Settings, views: int) -> int:
    """Of all views of a chunk."""
    return views * math.prod(settings.network.grid(*settings.latent_shape[:3]))


def request_flops(settings: Settings, request: Request, coding) -> float:
    """Of one sample: all steps of all chunks, and the VAE."""
    views, chunks = len(request.options["views"]), request.options["chunks"]
    frames = settings.latent_shape[0]
    calls = passes_of(settings, request)
    coded = coding("encode") + coding("decode")
    each = tokens_of(settings, views) // views
    return chunks * (calls * forward_flops(settings.network, views, each) + views * frames * coded)


def forward_flops(config: DitConfig, views: int, tokens: int) -> float:
    """Of one pass over so many tokens of each view; multiplications and additions."""
    count, width = views * tokens, config.width
    seen = count if not config.cross_view else tokens + len(config.neighbours[0]) * tokens
    blocks = config.depth + len(config.hinted)
    linear = 2 * count * width * (6 * width + 2 * config.mlp)
    if config.cross_view:
        linear += 8 * count * width**2
    attended = 4 * count * width * (seen + TOKENS)
    words = 4 * views * TOKENS * config.text_width * width
    hints = 2 * count * width**2 * (HINT_LAYERS * config.hint + 1 + len(config.hinted))
    return float(blocks * (linear + attended + words) + hints)


def memory_parts(settings: Settings, mesh: Mesh, views: int) -> dict[str, int]:
    """About what a device needs in bytes: what stays, and the most that comes and goes."""
    network, width = settings.network, 2 if settings.models.dtype == "bfloat16" else 4
    size = lambda tree: sum(a.size for a in jax.tree.leaves(tree)) * width  # noqa: E731
    params = size(model.abstract_parameters(network)) // mesh.shape["tensor"]
    params += size(vae.abstract_parameters(settings.vae))
    split = mesh.shape["view"] * mesh.shape["seq"] * mesh.shape["tensor"]
    batch = 2 if passes_together(settings, mesh) else 1
    array = batch * tokens_of(settings, views) * network.width * width // mesh.shape["data"]
    step = array * (LIVE + network.mlp / network.width + len(network.hinted)) / split
    step += 2 * array / mesh.shape["tensor"] * (split > 1)  # keys and values of all devices
    pixels = settings.sampling.height * settings.sampling.width * settings.vae.time_stride
    coding = WIDEST * pixels * settings.vae.width * width
    coding //= mesh.shape["seq"] * mesh.shape["tensor"]
    most, what = max((step, "a step"), (coding, "the VAE"))
    return {"weights": params, what: int(most), "other": OTHER}


def passes_of(settings: Settings, request: Request) -> int:
    """Passes through the network for a chunk."""
    return sum(PASSES[step.kind] for step in _steps(settings, request))


def _steps(settings: Settings, request: Request) -> list[sample.Step]:
    spec = request.options["spec"]
    return sample.plan_steps(settings.sampler, spec["num_steps"], spec["guidance"])


def _vae_flops(settings: Settings, way: str) -> float:
    """Of one latent frame in the middle of a view's video."""
    config = settings.vae
    params = vae.abstract_parameters(config)
    if way == "decode":
        step, first = vae.decode_next, (1, 1, *settings.latent_shape[1:])
        shape = first
    else:
        size = (settings.sampling.height, settings.sampling.width, 3)
        step, first, shape = vae.encode_next, (1, 1, *size), (1, config.time_stride, *size)
    array = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    past = jax.eval_shape(lambda p, x: step(config, p, x)[1], params, array(first))
    call = jax.jit(functools.partial(step, config)).trace(params, array(shape), past)
    return float((call.lower().cost_analysis() or {}).get("flops", 0.0))


def _compilations(settings: Settings, wanted: Sequence[Request], numbers: int) -> int:
    """Velocities of each kind and number of views, encoding of controls and of given frames."""
    kinds = {s.kind for r in wanted for s in _steps(settings, r)} - {"reused"}
    given = any(any(r.options["views"].values()) or r.options["overlap"] for r in wanted)
    return numbers * len(kinds) + (2 + given) * bool(wanted)
