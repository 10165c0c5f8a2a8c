"""FDM as a generator of the runner: batches of videos, completed call by call of a scheme."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core.files import atomic_path
from jaxvid.core.mesh import make_mesh, over_data, replicated
from jaxvid.core.noise import request_key
from jaxvid.data.sources import open_source
from jaxvid.fdm import marking
from jaxvid.fdm.cost import batch_size
from jaxvid.fdm.model import load_model
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
from jaxvid.runs.manifest import Manifest
from jaxvid.runs.requests import Chunk, Request, Snapshot, Stage


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
        self.settings, self.calls = settings, len(settings.steps())
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

    def resumable(self, requests: list[Request]) -> bool:
        """Whether the videos take so long that they can be gone on with in the middle.

        No frame is handed out before the last Snapshot: files do not depend on where these are.
        """
        del requests
        return 0 < self.settings.checkpoint_calls < self.calls

    def generate(self, batch: list[Request]) -> Iterator[Chunk | Stage | Snapshot]:
        """Yields progress, then the finished videos."""
        truth = np.stack([self._read(request.options["video"]) for request in self._filled(batch)])
        start = marking.normalise(truth) * self.given[:, None, None, None]
        self.videos = jax.device_put(start.astype(np.float32), over_data(self.mesh))
        yield from self._calls(batch)
        yield from self._results(batch)

    def resume(self, batch: list[Request], info: dict, restore: Callable):
        """The same from a Snapshot on."""
        network, place = self.settings.network, over_data(self.mesh)
        frame = network.image_size, network.image_size, network.image_channels
        shape = self.batch_size, self.settings.T, *frame
        like = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
        self.videos = restore({"videos": like})["videos"]
        yield from self._calls(batch, info["calls"])
        yield from self._results(batch)

    def _filled(self, batch: list[Request]) -> list[Request]:
        return [*batch, *[batch[-1]] * (self.batch_size - len(batch))]

    def _calls(self, batch: list[Request], first: int = 0) -> Iterator[Stage | Snapshot]:
        """The calls from number `first` on, which change `self.videos`.

        An adaptive scheme goes through the calls before once more. What it then sees of a frame is
        what was there, or, if the frame was made again since, what it will look at anew.
        """
        settings, every = self.settings, self.settings.checkpoint_calls
        keys = jnp.stack([request_key(r.seed, r.id) for r in self._filled(batch)])
        keys = jax.device_put(keys, over_data(self.mesh))
        scheme = enumerate(settings.scheme(self._embed))
        for number, step in itertools.islice(scheme, first, None):
            yield Stage(f"call {number + 1}/{self.calls}", number / self.calls)
            frames = make_window(step, settings.max_frames, self.batch_size)
            frames = jax.device_put(frames, self._place(frames))
            with jax.set_mesh(self.mesh):
                self.videos = self._complete(self.params, self.videos, keys, number, frames)
            self.videos.block_until_ready()
            done = number + 1
            if self.resumable(batch) and done % every == 0 and done < self.calls:
                yield Snapshot({"videos": self.videos}, {"calls": done})

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

    def _results(self, batch: list[Request]) -> Iterator[Chunk]:
        videos = np.asarray(self.videos)
        for index, request in enumerate(batch):
            truth = self._read(request.options["video"])
            yield from self._outputs(index, request, truth, videos[index])

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
