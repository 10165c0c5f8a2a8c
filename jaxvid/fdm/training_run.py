"""FDM as a training run: data in, updates, sample videos; see runs/training.py for the loop."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxvid.core import video
from jaxvid.core.distributed import whole
from jaxvid.core.mesh import MeshConfig, make_mesh, replicated
from jaxvid.data.batches import batches
from jaxvid.data.source import Source
from jaxvid.data.sources import open_source
from jaxvid.fdm import frames as frame_sets
from jaxvid.fdm import timesteps, train
from jaxvid.fdm.model import (
    Model,
    abstract_parameters,
    describe_model,
    initial_parameters,
    load_model,
    save_model,
)
from jaxvid.fdm.preview import preview_video
from jaxvid.fdm.process import make_process
from jaxvid.fdm.setup import training_setup
from jaxvid.fdm.training_settings import Setup, upstream_arguments
from jaxvid.fdm.unet import Frames
from jaxvid.runs.training_log import plain_means
from jaxvid.runs.training_settings import loop_of

State = tuple[train.State, timesteps.LossHistory]


def from_config(config: ConfigDict) -> "FdmTraining":
    """The run that a config describes; raises ValueError, see setup.training_setup."""
    return FdmTraining(training_setup(config))


class FdmTraining:
    """A training run of FDM; see runs.training.System."""

    def __init__(self, setup: Setup):
        self.setup, self.run, self.mesh = setup, setup.run, setup.mesh
        self.loop = loop_of(setup.train)
        self.advice = f"Lower train.lr={setup.train.lr}"
        self.fingerprint = setup.fingerprint
        self.process = make_process(setup.diffusion)

    def open(self, mesh) -> None:
        setup = self.setup
        self.devices, self.source = mesh, open_source(setup.data, "train")
        if self.source.size != setup.network.image_size:
            raise ValueError(
                f"data size={self.source.size} is not the network's "
                f"image_size={setup.network.image_size}"
            )
        setup.train.check_clip(self.source.frames)
        parallel = mesh.shape["data"] * setup.train.microbatches
        if setup.train.batch_size % parallel:
            raise ValueError(
                f"train.batch_size={setup.train.batch_size} is not a multiple of "
                f"{mesh.shape['data']} devices x {setup.train.microbatches} microbatches"
            )
        self.source.check_all()
        if setup.train.sample_every:
            self._check_tests(open_source(setup.data, "test"))
        print(self.source.describe(), flush=True)

    def _check_tests(self, tests: Source) -> None:
        """ValueError for videos that cannot be completed during training."""
        if not len(tests):
            raise ValueError(
                f"{self.source.where} has no test videos to complete during training; set "
                "data.test_videos, or train.sample_every=0"
            )
        tests.check_all()

    def initial_state(self) -> State:
        """A given model, or fresh parameters."""
        setup = self.setup
        if setup.run.start_from:
            _check_start(setup)
            params = load_model(setup.run.start_from).params
        else:
            params = initial_parameters(setup.network, jax.random.key(setup.train.seed))
        state = train.initial_state(setup.train, params)
        if setup.run.start_from:
            state = _upstream_state(setup, state)
        history = timesteps.empty_history(self.process.steps)
        return jax.device_put(state, replicated(self.devices)), history

    def abstract_state(self) -> State:
        like = jax.eval_shape(
            functools.partial(train.initial_state, self.setup.train),
            abstract_parameters(self.setup.network),
        )
        place = replicated(self.devices)
        like = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place), like)
        return like, timesteps.empty_history(self.process.steps)

    def feed(self, start: int) -> "Feed":
        return Feed(self.setup, self.source, self.devices, start)

    def update(self, state: State, batch: train.Batch):
        """The metrics are (timestep (m, b), dict of terms)."""
        (state, history), times = state, batch.timestep
        state, metrics = self._step(state, batch)
        if self.setup.train.timestep_sampler != "uniform":
            found = (whole(a).ravel() for a in (times, metrics["loss"]))
            history = timesteps.add_losses(history, *found)
        return (state, history), (times, metrics)

    @functools.cached_property
    def _step(self):
        return update_function(self.setup)

    def means(self, pending: Sequence) -> dict[str, float]:
        """Means of all updates, and by quartile of time."""
        found = plain_means(metrics for _, metrics in pending)
        quarters = {}
        for times, metrics in jax.tree.map(whole, list(pending)):
            quartile = 4 * times.ravel() // self.process.steps
            for name, numbers in metrics.items():
                for q in np.unique(quartile) if numbers.ndim else ():
                    of = quarters.setdefault(f"{name}_q{q}", [])
                    of.append(numbers[quartile == q].mean())
        return found | {name: float(np.mean(numbers)) for name, numbers in quarters.items()}

    def sample(self, state: State, step: int) -> None:
        """Completes two test clips with the first EMA and writes them as a GIF."""
        if jax.process_index() > 0:
            return
        params = jax.tree.map(np.asarray, next(iter(state[0].ema.values())))
        alone = make_mesh(MeshConfig(), jax.local_devices()[:1])  # the other processes go on
        with jax.set_mesh(alone):
            clip = preview_video(self.setup, params)
        path = self.run.folder / "samples" / f"step_{step:08d}.gif"
        with video.VideoWriter(path, fps=4) as writer:
            writer.write(clip)

    def export(self, state: State, step: int) -> None:
        """Each EMA as a model."""
        setup, arguments = self.setup, upstream_arguments(self.setup)
        for rate, params in state[0].ema.items():
            model = Model(setup.network, setup.diffusion, params, arguments, step)
            save_model(self.run.folder / f"ema_{rate}", model, overwrite=True)


@functools.cache
def update_function(setup: Setup):
    """The jitted update of a run, (state, batch) -> (state, metrics); it consumes the state."""
    process, key = make_process(setup.diffusion), jax.random.key(setup.train.seed + 1)

    def update(state, batch):
        batch = batch._replace(clean=batch.clean.astype(jnp.float32) / 127.5 - 1)
        return train.train_step(setup.train, setup.network, process, state, batch, key)

    return jax.jit(update, donate_argnums=0)


FREE = {"remat": False, "dtype": "float32", "dropout": 0.0}  # may change between runs of a network


def _upstream_state(setup: Setup, state: train.State) -> train.State:
    """Adds the optimiser and EMAs that lie beside an upstream model file."""
    from jaxvid.fdm.keys import companion_state

    path = Path(setup.run.start_from)
    return companion_state(path, setup.network, state) if path.suffix == ".pt" else state


def _check_start(setup: Setup) -> None:
    """ValueError, which names the first difference, if the model to start from does not fit."""
    found = describe_model(setup.run.start_from).network
    for field in dataclasses.fields(setup.network):
        theirs, ours = (getattr(network, field.name) for network in (found, setup.network))
        if field.name not in FREE and theirs != ours:
            raise ValueError(
                f"run.start_from={setup.run.start_from} holds another network: its "
                f"network.{field.name} is {theirs!r}, not {ours!r}"
            )


class Feed:
    """Batches of frame sets, a function of (seed, step): a resumed run reads the same."""

    def __init__(self, setup: Setup, source, mesh, start: int):
        index, count = jax.process_index(), jax.process_count()
        self.config, self.mesh, self.frames = setup.train, mesh, source.frames
        self.rows = range(index, self.config.batch_size, count)
        read = functools.partial(
            batches,
            source,
            self.config.batch_size,
            seed=self.config.seed,
            start_step=start,
            process_index=index,
            process_count=count,
        )
        self.videos = read()
        self.others = read(stream=1) if self.config.pad_with_random_frames else None
        self.process = make_process(setup.diffusion)

    def __call__(self, step: int, state: State) -> train.Batch:
        """The batch of one update, on the devices, with a leading axis of microbatches."""
        config = self.config
        videos = next(self.videos)
        others = videos if self.others is None else next(self.others)
        sets = frame_sets.sample_frames(
            config.seed,
            step,
            self.rows,
            self.frames,
            config.max_frames,
            distribution=config.mask_distribution,
            marginal=config.marginal_frames,
            random_padding=config.pad_with_random_frames,
            upstream_masks=config.padding_masks == "upstream",
        )
        if not config.pad_with_random_frames:
            sets = _widened(sets, config.max_frames)
        times, weights = self._timesteps(step, state[1])
        real = None if config.pad_with_random_frames else _real(sets)
        batch = train.Batch(
            clean=frame_sets.gather(videos, others, sets),
            frames=Frames(
                sets.frame_indices,
                sets.obs_mask,
                sets.latent_mask,
                sets.kinda_mask if config.marginal_frames else None,
                real,
            ),
            timestep=times[list(self.rows)],
            weight=weights[list(self.rows)],
            noise=None,
        )
        return jax.tree.map(self._place, batch)

    def _timesteps(self, step: int, history):
        rng = np.random.default_rng([self.config.seed, step, 2])
        if self.config.timestep_sampler == "uniform":
            count = self.config.batch_size
            return rng.integers(self.process.steps, size=count), np.ones(count, np.float32)
        weights = timesteps.loss_weights(history)
        return timesteps.sample_timesteps(rng, weights, self.config.batch_size)

    def _place(self, array):
        count = self.config.microbatches
        array = array.reshape(count, len(array) // count, *array.shape[1:])
        sharding = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec(None, "data"))
        return jax.make_array_from_process_local_data(sharding, array)


def _real(sets: frame_sets.FrameSets):
    return np.minimum(sets.obs_mask + sets.latent_mask + sets.kinda_mask, 1)


def _widened(sets: frame_sets.FrameSets, size: int) -> frame_sets.FrameSets:
    """Pads rows without random padding to a static size, so that all steps share a compilation."""
    missing = size - sets.frame_indices.shape[1]
    return type(sets)(*(np.pad(a, ((0, 0), (0, missing))) for a in sets))
