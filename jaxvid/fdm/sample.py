"""FDM as a mode of the runner: which videos to complete, what it costs, and doing it."""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core import checkpoint
from jaxvid.core.files import atomic_path
from jaxvid.core.mesh import make_mesh, over_data, replicated
from jaxvid.core.noise import request_key
from jaxvid.data.source import Source
from jaxvid.data.sources import open_source
from jaxvid.fdm import marking, naming, schemes
from jaxvid.fdm.model import abstract_parameters, load_model, network
from jaxvid.fdm.process import make_process
from jaxvid.fdm.sample_config import Settings
from jaxvid.fdm.sampler import (
    call_noise,
    denoise_window,
    gather_frames,
    make_window,
    scatter_latent,
)
from jaxvid.fdm.unet import Frames
from jaxvid.runs import plan as plans
from jaxvid.runs.manifest import Manifest
from jaxvid.runs.requests import Chunk, Request, Stage


def video_indices(settings: Settings, source: Source) -> list[int]:
    """The videos asked for: `indices`, a batch (the last may be short), a subset, or all.

    Raises:
      ValueError: an index, or a subset that the dataset does not have, or no videos at all.
    """
    sampling, count = settings.sampling, len(source)
    if not count:
        raise ValueError(f"{source.where} has no {sampling.split} videos; see data.test_videos")
    wrong = [i for i in sampling.indices if not 0 <= i < count]
    if wrong:
        raise ValueError(f"sampling.indices={wrong[0]}: {source.where} has videos 0 to {count - 1}")
    if sampling.subset_size > count:
        raise ValueError(f"sampling.subset_size={sampling.subset_size}: there are {count} videos")
    if sampling.indices:
        return list(dict.fromkeys(sampling.indices))
    if sampling.subset_size and sampling.subset == "random":
        chosen = np.random.RandomState(123).choice(count, sampling.subset_size, replace=False)
        return sorted(map(int, chosen))
    if sampling.batch >= 0:
        return list(range(count))[sampling.batch * sampling.batch_size :][: sampling.batch_size]
    return list(range(sampling.subset_size or count))


def requests(settings: Settings) -> list[Request]:
    """One request for each video and sample; a video that cannot be used carries the reason."""
    sampling = settings.sampling
    source = open_source(settings.data, sampling.split)
    samples = [sampling.sample_idx] if sampling.sample_idx >= 0 else range(sampling.num_samples)
    found = []
    for i in video_indices(settings, source):
        error = ""
        try:
            source.check(i)
        except ValueError as problem:
            error = str(problem)
        for sample in samples:
            found.append(_request(settings, source, i, sample, error))
    return found


def _request(settings: Settings, source: Source, index: int, sample: int, error: str) -> Request:
    name = naming.sample_name(index, sample)
    stem = Path(name).stem
    outputs = {"sample": f"samples/{name}"}
    if settings.sampling.video != "none":
        outputs["video"] = f"videos/{stem}.{settings.sampling.video}"
    file = source.place(index)
    return Request(
        id=stem,
        seed=settings.sampling.seed,
        inputs={"clip": file} if Path(file).is_file() else {},
        outputs=outputs,
        options={
            "video": index,
            "name": source.name(index),
            "sample": sample,
            "scheme": settings.sampling.scheme,
            "observed": settings.sampling.n_obs,
            "frames": settings.T,
            "fps": source.fps,
        },
        error=error,
    )


def result_settings(settings: Settings) -> dict:
    """What decides the contents of the outputs, for their fingerprint."""
    sampling = dataclasses.asdict(settings.sampling)
    which = ("batch_size", "batch", "indices", "subset_size", "subset", "num_samples", "sample_idx")
    names = ("eval_dir", "name_dataset", "visualise")
    resolved = ("max_frames", "step_size", "optimality", "schedule", "distance", "lpips")
    for field in (*which, *names, *resolved):
        del sampling[field]
    data = dataclasses.asdict(settings.data) | {"cache_mb": 0, "root": ""}
    return {
        "mode": "fdm",
        "sampling": sampling,
        "data": data,
        "videos": open_source(settings.data, settings.sampling.split).version(),
        "network": dataclasses.asdict(settings.network),
        "diffusion": dataclasses.asdict(settings.diffusion),
        "frames": [settings.T, settings.max_frames, settings.step_size],
        "schedule": settings.optimal(),
        "distance": settings.sampling.distance if schemes.is_adaptive(sampling["scheme"]) else "",
        "embedding": settings.needs_lpips and checkpoint.fingerprint(settings.sampling.lpips),
    }


def plan(settings: Settings, wanted: list[Request]) -> plans.Plan:
    """Cost of the requests, from shapes alone."""
    steps, sampling = settings.steps(), settings.sampling
    evaluations = len(steps) * make_process(settings.diffusion).steps
    made = settings.T - sampling.n_obs
    note = f"{sampling.n_obs} observed, {len(steps)} calls x {evaluations // len(steps)} steps"
    frames = plans.Frames
    mesh_size = make_mesh(settings.mesh, jax.local_devices()).shape["data"]
    return plans.Plan(
        frames=tuple(frames(r.id, settings.T, settings.T, settings.T, note) for r in wanted),
        flops=evaluation_flops(settings) * evaluations * len(wanted) * (made > 0),
        memory_bytes=memory_bytes(settings, batch_size(settings, mesh_size) // mesh_size),
        available_bytes=plans.device_bytes(),
        compilations=2 if schemes.is_adaptive(sampling.scheme) and sampling.n_obs == 0 else 1,
    )


def _abstract_call(settings: Settings, batch: int):
    config, size = settings.network, settings.max_frames
    side = config.image_size
    array = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    mask = array((batch, size))
    frames = Frames(jax.ShapeDtypeStruct((batch, size), jnp.int32), mask, mask, None, mask)
    x = array((batch, size, side, side, config.image_channels))
    return abstract_parameters(config), x, array((batch,)), frames


def evaluation_flops(settings: Settings) -> float:
    """FLOPs of one evaluation of the network for one video."""
    params, x, times, frames = _abstract_call(settings, 1)
    call = jax.jit(lambda p, x, t, f: network(settings.network, p, x, x, t, f))
    cost = call.trace(params, x, times, frames).lower(lowering_platforms=("cpu",)).cost_analysis()
    return float((cost or {}).get("flops", 0.0))


def memory_bytes(settings: Settings, batch: int) -> int:
    """About what a device needs: parameters, conditioning, videos, and the widest activations."""
    config = settings.network
    params = sum(a.size * 4 for a in jax.tree.leaves(abstract_parameters(config)))
    width = 2 if config.dtype == "bfloat16" else 4
    frame = config.image_size**2 * config.channels * config.mult[0] * width
    activations = 16 * batch * settings.max_frames * frame  # the skips and a level's temporaries
    videos = 3 * batch * settings.T * config.image_size**2 * config.image_channels * 4
    return int(params + activations + videos + 2**28)


def batch_size(settings: Settings, devices: int) -> int:
    """Videos per call: at least one for each device of the data axis, a multiple of them."""
    return -(-settings.sampling.batch_size // devices) * devices


def load(settings: Settings, embed=None) -> "Generator":
    """Parameters on the devices, ready to sample; see Generator."""
    return Generator(settings, embed)


class Generator:
    """Completes batches of videos, call by call of a scheme."""

    def __init__(self, settings: Settings, embed=None):
        self.mesh = make_mesh(settings.mesh, jax.local_devices())  # processes share out requests
        self.batch_size = batch_size(settings, self.mesh.shape["data"])
        self.devices = f"{self.mesh.size} x {jax.devices()[0].device_kind}"
        self.params = load_model(settings.checkpoint, replicated(self.mesh)).params
        self.process = make_process(settings.diffusion)
        self.embed = embed
        self.given = np.zeros(settings.T, bool)
        self.given[sorted(settings.given_frames())] = True
        self._open(settings)
        self._complete = jax.jit(self._complete_call, donate_argnums=1)

    def _open(self, settings: Settings) -> None:
        self.settings = settings
        self.source = open_source(settings.data, settings.sampling.split)
        self._read = functools.lru_cache(maxsize=4 * self.batch_size)(self.source.__getitem__)

    def take_over(self, settings: Settings) -> bool:
        """Goes on with other videos, if nothing else differs; says whether it does."""
        same = dataclasses.replace(self.settings, data=settings.data, output=settings.output)
        if same == settings:
            self._open(settings)
        return same == settings

    def group(self, request: Request) -> int:
        """All requests of a run have the same shapes."""
        del request
        return 0

    def prefetch(self, batch: list[Request]) -> None:
        """Reads the clips of a call ahead."""
        for request in batch:
            self._read(request.options["video"])

    def generate(self, batch: list[Request]) -> Iterator[Chunk | Stage]:
        """Yields progress, then the finished videos."""
        truth = np.stack([self._read(request.options["video"]) for request in batch])
        missing = self.batch_size - len(batch)
        padded = np.concatenate([truth, np.repeat(truth[-1:], missing, 0)])
        seeds = [request_key(r.seed, r.id) for r in [*batch, *[batch[-1]] * missing]]
        with jax.set_mesh(self.mesh):
            yield from self._calls(padded, jnp.stack(seeds))
            videos = np.asarray(self.videos)[: len(batch)]
        for index, request in enumerate(batch):
            yield from self._outputs(index, request, truth[index], videos[index])

    def _calls(self, truth: np.ndarray, keys) -> Iterator[Stage]:
        """Runs the scheme; leaves the completed videos in `self.videos`."""
        settings = self.settings
        scheme = settings.scheme(self._embed)
        start = marking.normalise(truth) * self.given[:, None, None, None]
        place = over_data(self.mesh)
        self.videos = jax.device_put(start.astype(np.float32), place)
        keys = jax.device_put(keys, place)
        total = len(settings.steps())
        for number, step in enumerate(scheme):
            yield Stage(f"call {number + 1}/{total}", number / total)
            frames = make_window(step, settings.max_frames, len(truth))
            frames = jax.device_put(frames, self._place(frames))
            self.videos = self._complete(self.params, self.videos, keys, number, frames)
            self.videos.block_until_ready()

    def _place(self, frames: Frames):
        shared = frames.indices.shape[0] == 1
        return replicated(self.mesh) if shared else over_data(self.mesh)

    def _complete_call(self, params, videos, keys, number, frames: Frames):
        """One call of the network over all denoising steps: (b, T, h, w, c) to the same."""
        sampling = self.settings.sampling
        x0 = gather_frames(videos, frames.indices)
        found = denoise_window(
            self.settings.network,
            self.process,
            params,
            x0,
            frames,
            call_noise(keys, number, x0.shape[1:]),
            method=sampling.method,
            eta=sampling.eta,
            clip=sampling.clip,
            guidance=sampling.guidance,
        )
        kept = jnp.asarray(self.given)[frames.indices]  # goal frames can lie in a window
        return scatter_latent(videos, found, frames._replace(latent=frames.latent * ~kept))

    def _embed(self, indices: list[int]) -> np.ndarray:
        """(b, n, d) embedding of frames as they are now, for the adaptive schemes."""
        frames = np.asarray(self.videos[:, np.asarray(indices)])
        if self.embed is None:
            return frames.reshape(*frames.shape[:2], -1)
        return np.stack([self.embed(video) for video in frames])

    def _outputs(self, index: int, request: Request, truth, video) -> Iterator[Chunk]:
        sampling = self.settings.sampling
        if not np.isfinite(video).all():
            raise ValueError("the sampled frames hold NaN or infinite values")
        saved = marking.quantise(video, truncate=sampling.pixels == "truncate")
        yield Chunk(index, "sample", saved.transpose(0, 3, 1, 2))
        if "video" in request.outputs:
            yield Chunk(index, "video", shown(self.settings, truth, saved))


def shown(settings: Settings, truth: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """The video to look at: truth beside the sample, observed frames marked red, enlarged.

    truth, sample: uint8 (t, h, w, 3); returns uint8 (t, h', 2w', 3).
    """
    factor = max(1, -(-settings.sampling.video_size // sample.shape[1]))
    pair = [a.repeat(factor, 1).repeat(factor, 2) for a in (truth, sample)]
    given = sorted(settings.given_frames())
    pair[1][given] = marking.mark_observed(pair[1][given])
    return np.concatenate(pair, axis=2)


def write_model_config(settings: Settings) -> None:
    """`model_config.json` of the evaluation folder, as upstream's scripts write and read it."""
    manifest = Manifest(settings.folder)
    content = settings.arguments | {
        "use_ddim": settings.sampling.method == "ddim",
        "timestep_respacing": settings.sampling.respacing,
    }
    # Under the lock, since a process that starts clears temporary files it finds.
    with manifest.locked(), atomic_path(settings.folder / "model_config.json") as temporary:
        temporary.write_text(json.dumps(content, indent=4))
