"""The multiview mode as a generator of the runner: chunk by chunk, step by step."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from jaxvid.core.distributed import agreed, place, whole
from jaxvid.core.mesh import replicated
from jaxvid.core.video import FFMPEG_SCALER, iter_video
from jaxvid.core.views import IDS
from jaxvid.cosmos import conditions, networks, noise, outputs, programs, sample
from jaxvid.cosmos.chunks import Layout, Piece, Window, autoregress
from jaxvid.cosmos.requests import arguments
from jaxvid.cosmos.sample_config import Settings
from jaxvid.cosmos.setup import passes_together, sampling_mesh
from jaxvid.cosmos.words import Words
from jaxvid.runs.requests import Chunk, Request, Snapshot, Stage
from jaxvid.wan import vae_keys
from jaxvid.wan.resize import resize_uint8


def load(settings: Settings, requests: Sequence[Request], devices=None) -> "Generator":
    """Words of all prompts of the requests, then the networks on the devices.

    devices: of the mesh; None for all.
    """
    prompts = [request.options["prompt"] for request in requests if not request.error]
    wanted = [*prompts, conditions.EMPTY, conditions.NEGATIVE]
    text, folder = settings.text, settings.text.config.embeddings
    with agreed():
        words = Words(text, settings.models, settings.network, wanted, folder)
        words.make(words.missing(list(words)))
    return Generator(settings, words, devices)


class Generator:
    """Makes one sample at a time, on all devices of the mesh."""

    batch_size = 1

    def __init__(self, settings: Settings, words: Mapping[str, np.ndarray], devices=None):
        """words: of all texts that will be asked for, (512, c) each; devices: see load."""
        self.settings, self.words = settings, words
        self.ahead = {}  # frames that `prefetch` has read, by their place
        self.mesh = sampling_mesh(settings, devices)
        self.devices = f"{self.mesh.size} x {jax.devices()[0].device_kind}"
        self.params = networks.load_transformer(settings, self.mesh)
        self.vae = vae_keys.load_or_draw(settings.models, settings.vae, self.mesh)
        with agreed():
            self.constant = {text: words[text] for text in (conditions.EMPTY, conditions.NEGATIVE)}

    def group(self, request: Request) -> str:
        """Samples never share a call."""
        return request.id

    def prefetch(self, batch: list[Request]) -> None:
        """Reads the controls of a sample's first chunk; on another thread."""
        video = Video(self, batch[0])
        self.ahead = {key: _read(*key) for key in video.places("control", 0, self.settings.frames)}

    def resumable(self, batch: list[Request]) -> bool:
        """Long videos go on after their last finished chunk."""
        return batch[0].options["chunks"] > 1

    def generate(self, batch: list[Request]) -> Iterator[Chunk | Stage | Snapshot]:
        """Yields the frames of each chunk when it is done."""
        (request,) = batch
        yield Chunk(0, "arguments", arguments(request))
        video = Video(self, request)
        yield from video.pieces(0, video.begin())

    def resume(self, batch: list[Request], info, restore: Callable) -> Iterator:
        """The same from a Snapshot on."""
        (request,) = batch
        video = Video(self, request)
        past = np.zeros((len(video.names), video.layout.overlap, *video.size, 3), np.uint8)
        like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), kept(past))
        kept_past = np.asarray(restore(like)["past"])
        yield from video.pieces(info["chunk"] + 1, kept_past if past.size else past)

    def place(self, array) -> jax.Array:
        """The array, whole on every device."""
        return place(np.asarray(array), replicated(self.mesh))

    def encode(self, frames: np.ndarray) -> np.ndarray:
        """Latents (v, t, h, w, c) of uint8 frames (v, t, h, w, 3), a few views at a time."""
        call = functools.partial(programs.encode, self.settings.vae, self.vae)
        with jax.set_mesh(self.mesh):
            found = [whole(call(part)) for part in self._groups(frames)]
        return np.concatenate(found)[: len(frames)]

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """uint8 frames (v, t, h, w, 3) of latents (v, t, h, w, c), a few views at a time.

        Raises:
          ValueError: frames that are no numbers.
        """
        settings, found, alone = self.settings, [], len(latents) == 1
        for part in self._groups(latents):
            with jax.set_mesh(self.mesh):
                frames, finite = programs.decode(
                    settings.vae, settings.sampling.pixels, alone, self.vae, part
                )
            if not finite:
                raise ValueError("the sampled frames hold NaN or infinite values")
            found.append(whole(frames))
        return np.concatenate(found)[: len(latents)]

    def _groups(self, views: np.ndarray) -> Iterator[jax.Array]:
        """As many views at a time as the mesh takes; the last ones are filled up."""
        size = self.mesh.shape["data"] * self.mesh.shape["view"]
        for start in range(0, len(views), size):
            part = views[start : start + size]
            filled = [*part, *[part[-1]] * (size - len(part))]
            yield self.place(np.stack(filled))


class Video:
    """One sample on its way."""

    def __init__(self, generator: Generator, request: Request):
        self.generator, self.request = generator, request
        self.settings, options = generator.settings, request.options
        self.names = list(options["views"])
        self.ids = [IDS[name] for name in self.names]
        self.layout = Layout(self.settings.frames, options["overlap"], options["chunks"])
        self.size = self.settings.sampling.height, self.settings.sampling.width
        spec = options["spec"]
        self.steps = sample.plan_steps(self.settings.sampler, spec["num_steps"], spec["guidance"])
        self.controls = None  # of the newest chunk

    @functools.cached_property
    def words(self) -> np.ndarray:
        """(512, c) of the prompt."""
        with agreed():
            return self.generator.words[self.request.options["prompt"]]

    def begin(self) -> np.ndarray:
        """The given frames of the input videos, uint8 (v, k, h, w, 3)."""
        count = max(self.request.options["views"].values())
        if not count:
            return np.zeros((len(self.names), 0, *self.size, 3), np.uint8)
        return self.read(self.request.options["given_from"], 0, count)

    def read(self, kind: str, start: int, count: int) -> np.ndarray:
        """Frames of the "control" or "input" videos, uint8 (v, t, h, w, 3) of the wanted size."""
        known = self.generator.ahead
        with agreed():
            frames = [(known.pop(key, None), key) for key in self.places(kind, start, count)]
            return np.stack([_read(*key) if ahead is None else ahead for ahead, key in frames])

    def places(self, kind: str, start: int, count: int) -> list[tuple]:
        """Arguments of `_read` for each view."""
        every = self.request.options["every"]
        paths = [self.request.inputs[f"{name}_{kind}"] for name in self.names]
        return [(path, start, count, every, *self.size) for path in paths]

    def pieces(self, first: int, past: np.ndarray) -> Iterator[Chunk | Stage | Snapshot]:
        """The chunks from `first` on, which begins with the frames `past`."""
        for item in autoregress(self.make, self.layout, past, first):
            if isinstance(item, Stage):
                yield item
                continue
            yield from self.files(item)
            if item.chunk + 1 < self.layout.chunks:
                yield Snapshot(kept(item.past), {"chunk": item.chunk})

    def files(self, piece: Piece) -> Iterator[Chunk]:
        """New frames for each of the request's files."""
        wanted = self.request.outputs
        with agreed():
            frames = np.stack(list(map(self.settings.safety.admitted, piece.frames)))
        if "combined" in wanted:  # one view after another, which a file of parts can put in order
            whole = self.layout.chunks == 1
            yield from (Chunk(0, "combined", part) for part in (frames if whole else [frames]))
        for name, view in zip(self.names, frames, strict=True):
            if name in wanted:
                yield Chunk(0, name, view)
        if "grid" in wanted:
            yield Chunk(0, "grid", outputs.square_grid(frames))
        if "around" in wanted:
            yield Chunk(0, "around", outputs.around_grid(frames, self.ids))
        if "control_grid" in wanted:
            controls = self.controls[:, self.layout.new(piece.chunk) :]
            yield Chunk(0, "control_grid", outputs.with_controls(frames, controls, self.ids))

    def make(self, window: Window) -> Iterator[Stage]:
        """Makes a chunk: yields how far it is and returns its frames, uint8 (v, t, h, w, 3)."""
        put, told = self.generator.place, f"chunk {window.chunk + 1}/{self.layout.chunks}"
        done = window.chunk / self.layout.chunks
        yield Stage(f"{told}: encoding", done)
        self.controls = self.read("control", window.start, self.layout.frames)
        control = put(self.generator.encode(self.controls)[None])
        given = sample.Given(*map(put, self.given(window)))
        begin, fresh = self.noise(window.chunk), lambda i: self.noise(window.chunk, i + 1)
        with jax.set_mesh(self.generator.mesh):
            velocity = functools.partial(self.velocity, self.scene(control))
            states = sample.sample(velocity, programs.advance, self.steps, begin, given, fresh)
        for number in range(len(self.steps)):
            yield Stage(f"{told}: step {number + 1}/{len(self.steps)}",
                        done + number / len(self.steps) / self.layout.chunks)  # fmt: skip
            with jax.set_mesh(self.generator.mesh):
                state = jax.block_until_ready(next(states))
        yield Stage(f"{told}: decoding", done + 1 / self.layout.chunks)
        return self.generator.decode(whole(state.x)[0])

    def velocity(self, scene: programs.Scene, kind, x, timestep, given, begin) -> jax.Array:
        together = passes_together(self.settings, self.generator.mesh)
        return programs.velocity(
            self.settings.network, together, kind, self.generator.params, scene, x, timestep,
            given, begin,
        )  # fmt: skip

    def given(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Clean latents (1, v, t, h, w, c) and mask (1, v, t) of the frames that are not made.

        Later latents do not change earlier ones, so only as many frames are coded as are given.
        """
        stride = self.settings.vae.time_stride
        counts = [*self.request.options["views"].values()]
        if window.chunk:
            counts = [self.layout.overlap] * len(counts)
        latent = [conditions.latent_count(count, stride) for count in counts]
        frames, most = self.settings.latent_shape[0], max(latent)
        clean = np.zeros((len(counts), *self.settings.latent_shape), np.float32)
        if most:
            pixels = self.settings.vae.pixel_frames(most)
            clean[:, :most] = self.generator.encode(window.past[:, :pixels])
        return clean[None], conditions.given_mask(latent, frames)[None]

    def noise(self, chunk: int, draw: int = 0) -> jax.Array:
        """(1, v, t, h, w, c) at the start of a chunk, or what is added after a step."""
        seed, shape = self.request.seed, self.settings.latent_shape
        ranks = self.settings.sampling.upstream_ranks
        if ranks and not draw:
            found = noise.of_upstream(seed + chunk, ranks, len(self.ids), shape)
        else:
            found = noise.of_request(seed, self.request.id, self.ids, chunk, shape, draw)
        return self.generator.place(found)

    def scene(self, control: jax.Array) -> programs.Scene:
        """What the network is told in every step of a chunk."""
        constant, slot = self.generator.constant, conditions.front_slot(self.ids)
        texts = [
            conditions.assemble(words, constant[conditions.EMPTY], slot, len(self.ids))
            for words in (self.words, constant[conditions.NEGATIVE])
        ]
        spec, put = self.request.options["spec"], self.generator.place
        scalars = (spec["guidance"], spec["control_weight"])
        return programs.Scene(
            put(np.stack(texts)),
            control,
            put(np.asarray(self.ids, np.int32)),
            *(put(np.float32(number)) for number in scalars),
        )


def kept(past: np.ndarray) -> dict:
    """What a Snapshot holds of the frames that the next chunk begins with, if there are any."""
    return {"past": past if past.size else np.zeros(1, np.uint8)}


def _read(path: str, start: int, count: int, every: int, height: int, width: int) -> np.ndarray:
    """uint8 (count, h, w, 3): every so manieth frame, at the wanted size."""
    found = iter_video(path, start * every, (count - 1) * every + 1, FFMPEG_SCALER)
    frames = np.stack(list(itertools.islice(found, 0, None, every)))
    same = frames.shape[1:3] == (height, width)
    return frames if same else resize_uint8(frames, height, width)
