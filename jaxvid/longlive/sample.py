"""LongLive as a generator of the runner: block by block, each decoded while the next is made."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvid.core.mesh import make_mesh, over_data, replicated
from jaxvid.core.noise import request_key
from jaxvid.core.video import FFMPEG_SCALER, read_video, to_float
from jaxvid.longlive import models, rollout
from jaxvid.longlive.cache import CausalWan
from jaxvid.longlive.cost import batch_size, length_of, sampling_mesh
from jaxvid.longlive.sample_config import Length, Settings
from jaxvid.runs.requests import Chunk, Request, Stage
from jaxvid.wan import vae
from jaxvid.wan.dit import KV
from jaxvid.wan.umt5 import pad_rows


def load(settings: Settings, requests: Sequence[Request]) -> "Generator":
    """Embeddings of all prompts of the requests, then the networks on the devices."""
    prompts = [prompt for r in requests if not r.error for prompt in r.options["prompts"]]
    return Generator(settings, models.embed(settings, prompts))


class Generator:
    """Makes batches of videos.

    While a block is decoded and fetched, the next one is being denoised: JAX queues work without
    waiting for it, on the same device or, with `decoder="separate"`, on another one.
    """

    def __init__(self, settings: Settings, texts: dict[str, np.ndarray]):
        """texts: embeddings of all prompts that will be asked for, see `models.embed`."""
        self.settings, self.texts = settings, texts
        self.mesh = self.decoder_mesh = sampling_mesh(settings)
        self.devices = f"{self.mesh.size} x {jax.local_devices()[0].device_kind}"
        if settings.sampling.decoder == "separate":
            self.decoder_mesh = make_mesh(type(settings.mesh)(), jax.local_devices()[-1:])
            self.devices += " + 1 that decodes"
        self.batch_size = batch_size(settings, self.mesh.shape["data"])
        self.params = models.load_transformer(settings, self.mesh)
        self.vae = models.load_vae(settings, self.decoder_mesh)

    def take_over(self, settings: Settings) -> bool:
        """Goes on with another clip, if nothing else differs; says whether it does."""
        clip = dataclasses.replace(self.settings.sampling, video=settings.sampling.video)
        same = dataclasses.replace(self.settings, sampling=clip) == settings
        if same:
            self.settings = settings
        return same

    def network(self, frames: int) -> CausalWan:
        """The transformer with the cache of a video of so many latent frames."""
        settings = self.settings
        window = settings.rollout.cache_window(frames)
        return CausalWan(settings.network, window, jnp.dtype(settings.models.dtype))

    def group(self, request: Request):
        """Videos of equal length whose prompts change at the same frames share a call."""
        options = request.options
        return options["given"], options["latent_frames"], tuple(options["switch_frames"])

    def generate(self, batch: list[Request]) -> Iterator[Chunk | Stage]:
        """Yields frames as they are decoded."""
        length = length_of(self.settings, batch[0])
        written = 0
        yield Stage("clip" if length.given else "first block", 0.0)
        for frames in self.blocks(batch, length):
            for index in range(len(batch)):
                yield Chunk(index, "video", frames[index])
            written += frames.shape[1]
            yield Stage(f"frame {written}/{length.pixels}", written / length.pixels)

    def blocks(self, batch: list[Request], length: Length) -> Iterator[np.ndarray]:
        """uint8 (b, t, h, w, 3), in order; what is past the end of the video is cut."""
        filled = [*batch, *[batch[-1]] * (self.batch_size - len(batch))]
        left = length.pixels
        for frames in decoded(self.latents(filled, length), self.decode):
            frames = frames[:, :left]
            left -= frames.shape[1]
            yield frames

    def latents(self, batch: list[Request], length: Length) -> Iterator[jax.Array]:
        """Latents of the clip, then of each block, (b, t, h, w, c); nothing is waited for."""
        config = self.settings.rollout
        network = self.network(length.made)
        prompts = list(zip(*(request.options["prompts"] for request in batch), strict=True))
        texts = [self.text(segment) for segment in prompts]
        switches = batch[0].options["switch_frames"]
        later = texts[1:] if switches else []
        with jax.set_mesh(self.mesh):
            state = self.begin(network, texts[0])
            noise = self.noise([request_key(r.seed, r.id) for r in batch])
        if length.given:
            given = self.clip([request.inputs["clip"] for request in batch], length)
            with jax.set_mesh(self.mesh):
                state = rollout.condition(network, config, self.params, state, given)
                state = rollout.set_text(network, self.params, state, texts[1])
            yield from pieces(given, length.block)
        end = length.latent if config.blank_tail else length.made
        blocks = rollout.generate(
            network, config, self.params, state, noise, end, rollout.scheduled(later, switches)
        )
        yield from (block.latents for block in within(self.mesh, blocks))

    def begin(self, network: CausalWan, text) -> rollout.State:
        """The state before the first frame, placed as it is after each block.

        So one program serves the first block, too.
        """
        shape = (text.shape[0], *self.settings.latent_shape)
        state = rollout.begin(network, self.params, text, shape)
        keys = KV(*[NamedSharding(self.mesh, P(None, "data", None, "tensor"))] * 2)
        frames, number = over_data(self.mesh), replicated(self.mesh)
        return jax.device_put(state, rollout.State(keys, keys, frames, number))

    def noise(self, keys: Sequence) -> Callable[[int], jax.Array]:
        """Noise of a block by its first frame, see rollout.advance; `keys` are one per request."""
        keys = jax.device_put(jnp.stack(keys), over_data(self.mesh))
        return rollout.keyed_noise(keys, self.settings.rollout, self.settings.latent_shape)

    def text(self, prompts: Sequence[str]) -> jax.Array:
        """(b, m, c) embeddings of one prompt for each video of a call."""
        rows = pad_rows([self.texts[p] for p in prompts], self.settings.network.text_length)
        return jax.device_put(rows, over_data(self.mesh))

    def clip(self, paths: Sequence[str], length: Length) -> jax.Array:
        """(b, given, h, w, c) latents of the first frames of the clips."""
        sampling = self.settings.sampling
        frames = length.pixel(length.given)
        videos = [
            resize(read_video(path, 0, frames, FFMPEG_SCALER), sampling.height, sampling.width)
            for path in paths
        ]
        with jax.set_mesh(self.decoder_mesh):
            videos = jax.device_put(jnp.stack(videos), over_data(self.decoder_mesh))
            latents = _encode(self.settings.vae, length.block, self.vae, videos)
        return jax.device_put(latents, over_data(self.mesh))

    def decode(self, latents, past=None):
        """Frames of the next latents, see vae.decode_next, as uint8, and whether all are numbers.

        Nothing is waited for.
        """
        latents = jax.device_put(latents, over_data(self.decoder_mesh))
        with jax.set_mesh(self.decoder_mesh):
            return _decode(self.settings.vae, self.vae, latents, past)


def pieces(latents, block: int) -> Iterator:
    """Cuts along time, the shorter piece first, as the decoder compiles anew for the first."""
    first = (latents.shape[1] - 1) % block + 1
    yield latents[:, :first]
    for start in range(first, latents.shape[1], block):
        yield latents[:, start : start + block]


def decoded(latents: Iterator, decode: Callable) -> Iterator[np.ndarray]:
    """Decodes each piece, and hands it out when the next one is on its way.

    Raises:
      ValueError: frames that are no numbers.
    """
    waiting = past = None
    for piece in latents:
        *frames, past = decode(piece, past)
        if waiting is not None:
            yield fetch(*waiting)
        waiting = frames
    if waiting is not None:
        yield fetch(*waiting)


def fetch(frames, finite) -> np.ndarray:
    """The frames on the host."""
    if not finite:
        raise ValueError("the sampled frames hold NaN or infinite values")
    return np.asarray(frames)


def within(mesh, blocks: Iterator) -> Iterator:
    """The same blocks, each made under the mesh; whoever takes them is outside of it."""
    while True:
        with jax.set_mesh(mesh):
            block = next(blocks, None)
        if block is None:
            return
        yield block


@functools.partial(jax.jit, static_argnums=0, donate_argnums=3)
def _decode(config: vae.VaeConfig, params, latents, past):
    video, past = vae.decode_next(config, params, latents, past)
    levels = jnp.rint(jnp.clip((video + 1) * 127.5, 0, 255)).astype(jnp.uint8)
    return levels, jnp.isfinite(video).all(), past


@functools.partial(jax.jit, static_argnums=(0, 1))
def _encode(config: vae.VaeConfig, step: int, params, video):
    return vae.encode(config, params, video, step)


def resize(frames: np.ndarray, height: int, width: int):
    """Clip uint8 (t, h, w, 3) to float32 in [-1, 1] of the wanted size.

    Bilinear without antialiasing, the aspect ratio is not kept (the fork's
    `video_conditional_inference.py`).
    """
    video = to_float(frames)
    if video.shape[1:3] == (height, width):
        return jnp.asarray(video)
    shape = (len(video), height, width, 3)
    return _resize(video, shape)


@functools.partial(jax.jit, static_argnums=1)
def _resize(video, shape):
    exact = jax.lax.Precision.HIGHEST
    return jax.image.resize(video, shape, "linear", antialias=False, precision=exact)
