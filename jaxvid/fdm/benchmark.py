"""What is timed of FDM: sampling call by call, and training, through the code that runs them."""

import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core.mesh import make_mesh
from jaxvid.data.sources import open_source
from jaxvid.fdm import cost, sample
from jaxvid.fdm.model import Model, condition, evaluate, load_model, save_model
from jaxvid.fdm.process import make_process
from jaxvid.fdm.requests import requests as list_requests
from jaxvid.fdm.sample_config import Settings
from jaxvid.fdm.training_run import FdmTraining
from jaxvid.fdm.training_settings import Setup
from jaxvid.fdm.unet import Frames
from jaxvid.runs import training
from jaxvid.runs.benchmark import CompileClock, Subject, first_runs, seconds, start_seconds
from jaxvid.runs.requests import Stage
from jaxvid.runs.writers import open_writer


def sampling_subject(name: str, settings: Settings) -> Subject:
    """Stages of sampling: one evaluation of the network, one call of the scheme, input, output."""
    once = {"start: python, imports": start_seconds("jaxvid.fdm.sample")}
    once["start: parameters"] = seconds(
        lambda: jax.block_until_ready(load_model(settings.checkpoint).params)
    )
    requests = list_requests(settings)
    calls = Calls(settings, requests)
    once |= first_runs(calls.first, CompileClock())
    source = open_source(settings.data, settings.sampling.split)
    steps = make_process(settings.diffusion).steps
    stages = {
        "input: one video": lambda: source[requests[0].options["video"]],
        "one evaluation": evaluation(settings, calls.generator.batch_size),
        f"one call of {steps} evaluations": calls.next,
        "output: one video": functools.partial(write, settings, requests[0]),
    }
    facts = {
        "batch_size": calls.generator.batch_size,
        "max_frames": settings.max_frames,
        "evaluations_per_call": steps,
        "calls_per_video": len(settings.steps()),
        "flops_of_an_evaluation_per_video": cost.evaluation_flops(
            settings.network, settings.max_frames
        ),
    }
    return Subject(name, once, stages, facts)


class Calls:
    """Steps through the calls of a scheme, batch after batch of the same videos."""

    def __init__(self, settings: Settings, requests):
        self.generator, self.requests = sample.load(settings), requests
        self.running = iter(())

    def first(self) -> None:
        """The first call of a batch."""
        self.running = self._begin()
        self.next()

    def next(self) -> None:
        """One call: what happens between two announcements of the generator."""
        item = next(self.running, None)
        while not isinstance(item, Stage):  # the videos of a batch, or its end
            if item is None:
                self.running = self._begin()
                return self.next()
            item = next(self.running, None)
        return None

    def _begin(self):
        running = self.generator.generate(self.requests[: self.generator.batch_size])
        next(running)  # announces the first call
        return running


def evaluation(settings: Settings, batch: int):
    """One evaluation of the network inside a call, its conditioning ready."""
    config, size = settings.network, settings.max_frames
    params = load_model(settings.checkpoint).params
    frames = example_frames(1, size)
    terms = jax.jit(condition, static_argnums=0)(config, params, jnp.full(1, 500.0), frames)
    x = jax.random.normal(jax.random.key(0), (batch, size, *2 * (config.image_size,), 3))
    wide = jax.tree.map(lambda a: jnp.repeat(a, batch, 0), frames)
    run = jax.jit(functools.partial(evaluate, config))
    return lambda: run(params, x, x, wide, terms).block_until_ready()


def example_frames(batch: int, size: int) -> Frames:
    """(batch, size) frames in a row, the first half observed."""
    indices = jnp.broadcast_to(jnp.arange(size), (batch, size))
    observed = (indices < size // 2).astype(jnp.float32)
    return Frames(indices, observed, 1 - observed)


def write(settings: Settings, request) -> None:
    """Writes every output of a request, with frames of noise."""
    side = settings.network.image_size
    frames = np.random.default_rng(0).integers(0, 256, (settings.T, side, side, 3), np.uint8)
    video = sample.shown(settings, frames, frames)
    shown = {"sample": frames.transpose(0, 3, 1, 2), "video": video}
    with tempfile.TemporaryDirectory() as folder:
        for name, file in request.outputs.items():
            writer = open_writer(Path(folder) / Path(file).name, request.options)
            writer.write(shown[name])
            writer.close()


def training_subject(name: str, setup: Setup) -> Subject:
    """Stages of training: one update, reading its batch, writing a checkpoint of the model."""
    once = {"start: python, imports": start_seconds("jaxvid.fdm.training_run")}
    system, mesh = FdmTraining(setup), make_mesh(setup.mesh)
    system.open(mesh)
    kept = {}

    def prepare():
        kept["state"], _ = jax.block_until_ready(training.start(system))

    once["start: parameters, optimiser"] = seconds(prepare)
    feed = system.feed(0)
    batch = feed(0, kept["state"])

    def update():
        with jax.set_mesh(mesh):
            kept["state"], _ = jax.block_until_ready(system.update(kept["state"], batch))

    once |= first_runs(update, CompileClock())
    stages = {
        "input: one batch": lambda: jax.block_until_ready(feed(0, kept["state"])),
        "one update": update,
        "output: one checkpoint": lambda: save(setup, kept["state"][0].params),
    }
    facts = {"batch_size": setup.train.batch_size, "max_frames": setup.train.max_frames}
    return Subject(name, once, stages, facts)


def save(setup: Setup, params) -> None:
    """Writes one model."""
    with tempfile.TemporaryDirectory() as folder:
        model = Model(setup.network, setup.diffusion, params, {}, 0)
        save_model(Path(folder) / "model", model)
