"""What is timed of LongLive: a block by stage, and videos end to end, in the steady state."""

import dataclasses
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxvid.core import flops
from jaxvid.core.ahead import floor_seconds
from jaxvid.core.noise import request_key
from jaxvid.longlive import models, requests, rollout, sample, shapes
from jaxvid.longlive.sample import Generator
from jaxvid.longlive.sample_config import Length, Settings
from jaxvid.runs.benchmark import CompileClock, Subject, first_runs, seconds, start_seconds
from jaxvid.runs.requests import Request
from jaxvid.runs.writers import open_writer

BLOCKS = 300  # of the video that is timed end to end; absolute positions end at 341
DENOISE, WRITE = "block: denoising and cache write", "  of it the cache write, one pass"
DECODE, HOST = "block: VAE decode", "block: frames to the host"
FILE, WHOLE = "block: file write", "block end to end, stages overlapping"


def sampling_subject(name: str, settings: Settings) -> Subject:
    """Stages of a block once the window is full and the decoder has a past, and what comes before.

    The end-to-end figure comes from the same generator that runs use, with a thread that writes.
    """
    once = {"start: python, imports": start_seconds("jaxvid.longlive.sample")}
    prompt = next(r for r in requests.requests(settings) if not r.error).options["prompts"][0]
    texts, made = {}, []
    once["start: text encoder, a prompt"] = seconds(
        lambda: texts.update(models.embed(settings, [prompt]))
    )
    once["start: parameters"] = seconds(lambda: made.append(_loaded(settings, texts)))
    blocks = Blocks(made[0], prompt)
    once |= first_runs(blocks.start, CompileClock())
    stages = {
        DENOISE: blocks.denoise,
        WRITE: blocks.cache_write,
        DECODE: blocks.decode,
        HOST: blocks.to_host,
        FILE: blocks.write,
        WHOLE: blocks.next,
    }
    return Subject(name, once, stages, blocks.facts(), blocks.derived)


def _loaded(settings: Settings, texts) -> Generator:
    """The networks on the devices; the video is not interrupted by snapshots."""
    sampling = dataclasses.replace(settings.sampling, checkpoint_blocks=0)
    generator = Generator(dataclasses.replace(settings, sampling=sampling), texts)
    jax.block_until_ready((generator.params, generator.vae))
    return generator


class Blocks:
    """Runs the parts of a block one by one, each on what the block before has left."""

    def __init__(self, generator: Generator, prompt: str):
        """A video of one prompt, long enough for all repeats."""
        self.generator, self.settings = generator, generator.settings
        block, window = self.settings.rollout.block, self.settings.rollout.window
        frames = self.settings.length(0).latent if window == -1 else BLOCKS * block
        options = {"prompts": [prompt], "switch_frames": [], "given": 0, "latent_frames": frames}
        ids = [f"benchmark {n}" for n in range(generator.batch_size)]
        self.batch = [Request(id, 0, {}, options=options) for id in ids]
        self.length = Length(0, frames, block, self.settings.vae.time_stride)
        self.network = shapes.network(self.settings, self.length.made)
        self.running, self.writer = iter(()), ThreadPoolExecutor(1)
        self.file = self.writing = None

    def start(self):
        """A video's beginning, with the programs of every later block; frames on the host."""
        generator, config = self.generator, self.settings.rollout
        text = generator.text([request.options["prompts"][0] for request in self.batch])
        with jax.set_mesh(generator.mesh):
            state = generator.begin(self.network, text)
            keys = [request_key(request.seed, request.id) for request in self.batch]
            self.noise = generator.noise(keys)(0)
            past = None
            for _ in range(self.network.window.frames // config.block + 1):
                state, latents = rollout.advance(
                    self.network, config, generator.params, state, self.noise
                )
        for _ in range(2):
            *self.levels, past = generator.decode(latents, past)
        self.state, self.past, self.latents = state, past, latents
        self.first = int(state.frame)
        self.frames = sample.fetch(*self.levels)

    def denoise(self):
        """All steps and the pass that leaves the keys in the cache."""
        with jax.set_mesh(self.generator.mesh):
            self.state, self.latents = rollout.advance(
                *self._fixed(), self._here(), jax.block_until_ready(self.noise)
            )
        jax.block_until_ready(self.state)

    def cache_write(self):
        """One pass over a clean block."""
        with jax.set_mesh(self.generator.mesh):
            self.state = rollout.observe(*self._fixed(), self._here(), self.latents)
        jax.block_until_ready(self.state)

    def decode(self):
        """Latents to frames on the device."""
        *self.levels, self.past = self.generator.decode(self.latents, self.past)
        jax.block_until_ready((self.levels, self.past))

    def to_host(self):
        """The frames to the host; JAX keeps what it has fetched, so that they are copied first."""
        with jax.set_mesh(self.generator.decoder_mesh):
            copied = jax.block_until_ready(jnp.copy(self.levels[0]))
        self.frames = sample.fetch(copied, self.levels[1])

    def write(self):
        """The frames of one block into open video files, one for each video."""
        if self.file is None:
            self.folder = tempfile.TemporaryDirectory()
            path, options = Path(self.folder.name), {"fps": self.settings.sampling.fps}
            self.file = [open_writer(path / f"{i}.mp4", options) for i in range(len(self.batch))]
        for file, frames in zip(self.file, self.frames, strict=True):
            file.write(frames)

    def next(self):
        """Until the next block of a running video is on the host; the one before is written."""
        frames = next(self.running, None)
        if frames is None:  # the first time; the first block of a video is shorter
            self.running = self.generator.blocks(self.batch, self.length)
            _, frames = next(self.running), next(self.running)
        if self.writing:
            self.writing.result()
        self.frames = frames
        self.writing = self.writer.submit(self.write)

    def _fixed(self):
        return self.network, self.settings.rollout, self.generator.params

    def _here(self) -> rollout.State:
        """The state, at the same place of the video every time."""
        place = self.state.frame.sharding
        return self.state._replace(frame=jax.device_put(jnp.int32(self.first), place))

    def facts(self) -> dict:
        """Sizes and arithmetic."""
        work = self.work()
        generator, settings = self.generator, self.settings
        kind, count = jax.devices()[0].device_kind, generator.mesh.size
        return {
            "batch_size": len(self.batch),
            "pixel_frames_of_a_block": self.pixels,
            "size": f"{settings.sampling.height}x{settings.sampling.width}",
            "dtype": settings.models.dtype,
            "mesh": dict(generator.mesh.shape),
            "tflop": {part: sum(w.values()) / 1e12 for part, w in work.items()},
            "floor_seconds": {p: floor_seconds(w, kind, count) for p, w in work.items()},
        }

    @property
    def pixels(self) -> int:
        return self.settings.rollout.block * self.settings.vae.time_stride

    def work(self) -> dict:
        """FLOPs of the two programs of a block, by type."""
        generator, settings = self.generator, self.settings
        with jax.set_mesh(generator.mesh):
            block = rollout.advance.trace(*self._fixed(), self.state, self.noise)
        with jax.set_mesh(generator.decoder_mesh):
            arguments = settings.vae, generator.vae, self.latents, self.past
            decode = sample.decode_block.trace(*arguments)
        found = {DENOISE: flops.count(block.jaxpr.jaxpr), DECODE: flops.count(decode.jaxpr.jaxpr)}
        return {p: {k: n for k, n in w.items() if k != flops.BATCHED} for p, w in found.items()}

    def derived(self, found: dict) -> dict:
        """Figures that follow from the medians of the stages."""
        time = {stage: entry["median"] for stage, entry in found.items()}
        facts = self.facts()
        figures = {
            "pixel frames per second, end to end": len(self.batch) * self.pixels / time[WHOLE],
            "denoising, seconds": time[DENOISE] - time[WRITE],
        }
        for part, floor in facts["floor_seconds"].items():
            if floor is not None:
                figures[f"{part}: share of the data sheet's rate"] = floor / time[part]
            figures[f"{part}: TFLOP/s"] = facts["tflop"][part] / time[part]
        peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
        return figures | ({} if peak is None else {"peak memory of a device, GB": peak / 1e9})
