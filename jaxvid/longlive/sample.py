"""LongLive as a generator of the runner: block by block, each decoded while the next is made."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core.distributed import agreed, place, whole
from jaxvid.core.mesh import make_mesh, over_data
from jaxvid.core.noise import request_key
from jaxvid.core.video import FFMPEG_SCALER, read_video, to_float
from jaxvid.longlive import models, rollout, shapes
from jaxvid.longlive.cache import CausalWan
from jaxvid.longlive.cost import length_of, switch_starts
from jaxvid.longlive.memory import batch_size, sampling_mesh
from jaxvid.longlive.sample_config import Length, Settings
from jaxvid.runs.requests import Chunk, Request, Snapshot, Stage
from jaxvid.wan import vae, vae_keys
from jaxvid.wan.resize import resize as bilinear
from jaxvid.wan.umt5 import pad_rows


def load(settings: Settings, requests: Sequence[Request]) -> "Generator":
    """Embeddings of all prompts of the requests, then the networks on the devices."""
    prompts = [prompt for r in requests if not r.error for prompt in r.options["prompts"]]
    return Generator(settings, models.embed(settings, prompts))


class Piece(NamedTuple):
    """Latents of a clip, or of a block."""

    latents: jax.Array  # (b, t, h, w, c)
    frame: int  # latent frames of the video up to its end
    state: rollout.State | None = None  # after a block; used up by the next one


class Generator:
    """Makes batches of videos.

    While a block is decoded and fetched, the next one is being denoised: JAX queues work without
    waiting for it, on the same device or, with `decoder="separate"`, on another one.
    """

    def __init__(self, settings: Settings, texts: dict[str, np.ndarray]):
        """texts: embeddings of all prompts that will be asked for, see `models.embed`."""
        self.settings, self.texts = settings, texts
        self.mesh = self.decoder_mesh = sampling_mesh(settings)
        self.devices = f"{self.mesh.size} x {jax.devices()[0].device_kind}"
        if settings.sampling.decoder == "separate":
            self.decoder_mesh = make_mesh(type(settings.mesh)(), jax.devices()[-1:])
            self.devices += " + 1 that decodes"
        self.batch_size = batch_size(settings, self.mesh.shape["data"])
        self.params = models.load_transformer(settings, self.mesh)
        self.vae = vae_keys.load_or_draw(settings.models, settings.vae, self.decoder_mesh)
        self._clips = collections.deque(maxlen=2)  # by path: of this call and of the next

    def take_over(self, settings: Settings) -> bool:
        """Goes on with another clip, if nothing else differs; says whether it does."""
        clip = dataclasses.replace(self.settings.sampling, video=settings.sampling.video)
        same = dataclasses.replace(self.settings, sampling=clip) == settings
        if same:
            self.settings = settings
        return same

    def group(self, request: Request):
        """Videos of equal length whose prompts change at the same frames share a call."""
        options = request.options
        return options["given"], options["latent_frames"], tuple(options["switch_frames"])

    def prefetch(self, requests: list[Request]) -> None:
        """Reads the clips of the next call; on another thread."""
        length = length_of(self.settings, requests[0])
        clips = {request.inputs["clip"] for request in requests if length.given}
        self._clips.append({path: _read_clip(path, length) for path in sorted(clips)})

    def resumable(self, requests: list[Request]) -> bool:
        """Whether the videos are so long that they can be gone on with in the middle."""
        every = self.settings.sampling.checkpoint_blocks
        return 0 < every < length_of(self.settings, requests[0]).blocks

    def generate(self, batch: list[Request]) -> Iterator[Chunk | Stage | Snapshot]:
        """Yields frames as they are decoded."""
        length = length_of(self.settings, batch[0])
        yield Stage("clip" if length.given else "first block", 0.0)
        yield from self._named(batch, length, self.blocks(batch, length))

    def resume(self, batch: list[Request], info: dict, restore: Callable):
        """The same from a Snapshot on."""
        length, size = length_of(self.settings, batch[0]), self.batch_size
        like = {
            "state": shapes.state(self.settings, self.mesh, size, length.made),
            "past": shapes.decoder_past(self.settings, self.decoder_mesh, size),
        }
        blocks = self.blocks(batch, length, info["frame"], **restore(like))
        yield from self._named(batch, length, blocks, length.pixel(info["frame"]))

    def _named(self, batch: list[Request], length: Length, blocks: Iterator, written: int = 0):
        for frames in blocks:
            if isinstance(frames, Snapshot):
                yield frames
                continue
            for index in range(len(batch)):
                yield Chunk(index, "video", frames[index])
            written += frames.shape[1]
            yield Stage(f"frame {written}/{length.pixels}", written / length.pixels)

    def blocks(
        self, batch: list[Request], length: Length, frame: int = 0, state=None, past=None
    ) -> Iterator[np.ndarray | Snapshot]:
        """uint8 (b, t, h, w, 3), in order; what is past the end of the video is cut.

        frame, state, past: latent frames that are made, and what they have left, to go on with.
        """
        filled = [*batch, *[batch[-1]] * (self.batch_size - len(batch))]
        resumable = self.resumable(batch)
        every = self.settings.sampling.checkpoint_blocks * length.block

        def due(piece: Piece) -> bool:
            made = piece.frame - length.given
            return resumable and 0 < made and made % every == 0 and piece.frame < length.made

        left = length.pixels - length.pixel(frame)
        for frames in decoded(self.pieces(filled, length, frame, state), self.decode, past, due):
            if not isinstance(frames, Snapshot):
                frames = frames[:, :left]
                left -= frames.shape[1]
            yield frames

    def pieces(
        self, batch: list[Request], length: Length, frame: int = 0, state=None
    ) -> Iterator[Piece]:
        """The clip, then each block; nothing is waited for. frame, state: see `blocks`."""
        config, options = self.settings.rollout, batch[0].options
        network = shapes.network(self.settings, length.made)
        prompts = list(zip(*(request.options["prompts"] for request in batch), strict=True))
        texts = [self.text(segment) for segment in prompts]
        later = texts[1:] if options["switch_frames"] else []
        with jax.set_mesh(self.mesh):
            noise = self.noise([request_key(r.seed, r.id) for r in batch])
            state = self.begin(network, texts[0]) if state is None else state
        if length.given and not frame:
            given = self.clip([request.inputs["clip"] for request in batch], length)
            with jax.set_mesh(self.mesh):
                state = rollout.condition(network, config, self.params, state, given)
                state = rollout.set_text(network, self.params, state, texts[1])
            yield from (Piece(part, length.given) for part in pieces(given, length.block))
        frame = frame or length.given
        over = sum(start < frame for start in switch_starts(length, options["switch_frames"]))
        text_at = rollout.scheduled(later[over:], options["switch_frames"][over:])
        end = length.latent if config.blank_tail else length.made
        blocks = rollout.generate(network, config, self.params, state, noise, end, text_at)
        for block in within(self.mesh, blocks):
            frame += block.latents.shape[1]
            yield Piece(block.latents, frame, block.state)

    def begin(self, network: CausalWan, text) -> rollout.State:
        """The state before the first frame, placed as it is after each block.

        So one program serves the first block, too.
        """
        shape = (text.shape[0], *self.settings.latent_shape)
        return _begin(network, shape, shapes.state_places(self.mesh))(self.params, text)

    def noise(self, keys: Sequence) -> Callable[[int], jax.Array]:
        """Noise of a block by its first frame, see rollout.advance; `keys` are one per request."""
        numbers = np.stack([jax.random.key_data(key) for key in keys])
        keys = jax.random.wrap_key_data(place(numbers, over_data(self.mesh)))
        return rollout.keyed_noise(keys, self.settings.rollout, self.settings.latent_shape)

    def text(self, prompts: Sequence[str]) -> jax.Array:
        """(b, m, c) embeddings of one prompt for each video of a call."""
        rows = pad_rows([self.texts[p] for p in prompts], self.settings.network.text_length)
        return place(rows, over_data(self.mesh))

    def clip(self, paths: Sequence[str], length: Length) -> jax.Array:
        """(b, given, h, w, c) latents of the first frames of the clips."""
        sampling = self.settings.sampling
        with agreed():
            read = {path: self._frames(path, length) for path in sorted(set(paths))}
        videos = np.stack([resize(read[p], sampling.height, sampling.width) for p in paths])
        with jax.set_mesh(self.decoder_mesh):
            videos = place(videos, over_data(self.decoder_mesh))
            latents = _encode(self.settings.vae, length.block, self.vae, videos)
        return jax.device_put(latents, over_data(self.mesh))

    def _frames(self, path: str, length: Length) -> np.ndarray:
        """The first frames of a clip, read now if `prefetch` has not done so."""
        for ahead in tuple(self._clips):
            if path in ahead:
                return ahead.pop(path)
        return _read_clip(path, length)

    def decode(self, latents, past=None):
        """Frames of the next latents, see vae.decode_next, as uint8, and whether all are numbers.

        Nothing is waited for.
        """
        latents = jax.device_put(latents, over_data(self.decoder_mesh))
        with jax.set_mesh(self.decoder_mesh):
            return decode_block(self.settings.vae, self.vae, latents, past)


def _read_clip(path: str, length: Length) -> np.ndarray:
    """The frames of a clip that a video goes on from, uint8 (t, h, w, 3)."""
    return read_video(path, 0, length.pixel(length.given), FFMPEG_SCALER)


def pieces(latents, block: int) -> Iterator:
    """Cuts along time, the shorter piece first, as the decoder compiles anew for the first."""
    first = (latents.shape[1] - 1) % block + 1
    yield latents[:, :first]
    for start in range(first, latents.shape[1], block):
        yield latents[:, start : start + block]


def decoded(
    pieces: Iterator[Piece],
    decode: Callable,
    past=None,
    due: Callable[[Piece], bool] = lambda _: False,
) -> Iterator[np.ndarray | Snapshot]:
    """Decodes each piece, and hands it out when the next one is on its way.

    Args:
      decode: see Generator.decode.
      past: of the decoder, to go on with.
      due: whether a Snapshot comes after a piece; nothing is on its way then.
    Raises:
      ValueError: frames that are no numbers.
    """
    waiting = None
    for piece in pieces:
        *frames, past = decode(piece.latents, past)
        if waiting is not None:
            yield fetch(*waiting)
        waiting = frames
        if due(piece):
            yield fetch(*waiting)
            waiting = None
            yield Snapshot({"state": piece.state, "past": past}, {"frame": piece.frame})
    if waiting is not None:
        yield fetch(*waiting)


def fetch(frames, finite) -> np.ndarray:
    """The frames on the host."""
    if not finite:
        raise ValueError("the sampled frames hold NaN or infinite values")
    return whole(frames)


def within(mesh, blocks: Iterator) -> Iterator:
    """The same blocks, each made under the mesh; whoever takes them is outside of it."""
    while True:
        with jax.set_mesh(mesh):
            block = next(blocks, None)
        if block is None:
            return
        yield block


@functools.lru_cache(maxsize=16)
def _begin(network: CausalWan, shape: tuple[int, ...], places: rollout.State):
    """`rollout.begin` of frames (b, h, w, c), as one program of parameters and text."""
    begin = functools.partial(rollout.begin, network, shape=shape)
    return jax.jit(lambda params, text: begin(params, text), out_shardings=places)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def decode_block(config: vae.VaeConfig, params, latents, past):
    """Frames of latents as Generator.decode gives them, and the past, whose place they take."""
    video, past = vae.decode_next(config, params, latents, past)
    levels = jnp.rint(jnp.clip((video + 1) * 127.5, 0, 255)).astype(jnp.uint8)
    return levels, jnp.isfinite(video).all(), past


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(config: vae.VaeConfig, step: int, params, video):
    return vae.encode(config, params, video, step)


def resize(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Clip uint8 (t, h, w, 3) to float32 in [-1, 1] of the wanted size.

    Bilinear without antialiasing, the aspect ratio is not kept (the fork's
    `video_conditional_inference.py`).
    """
    video = to_float(frames)
    if video.shape[1:3] == (height, width):
        return video
    return np.asarray(bilinear(video, height, width, False))
