"""A training run: data in, updates, logs, checkpoints, sample videos; resumes exactly."""

import contextlib
import dataclasses
import fcntl
import functools
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core import checkpoint
from jaxvid.core.distributed import whole
from jaxvid.core.files import remove_temporaries
from jaxvid.core.mesh import make_mesh, replicated
from jaxvid.data.batches import batches
from jaxvid.data.sources import open_source
from jaxvid.fdm import frames as frame_sets
from jaxvid.fdm import timesteps, train
from jaxvid.fdm.model import Model, describe_model, initial_parameters, load_model, save_model
from jaxvid.fdm.process import make_process
from jaxvid.fdm.training_log import Log, means_of
from jaxvid.fdm.training_settings import Setup, upstream_arguments
from jaxvid.fdm.unet import Frames


def run(setup: Setup) -> train.State:
    """Trains until `train.steps`; continues the run found in `run.output`.

    Raises:
      ValueError: settings, data or the checkpoint to start from do not fit.
      training_log.DivergedError: the loss is no longer finite.
    """
    source = open_source(setup.data, "train")
    if source.size != setup.network.image_size:
        raise ValueError(
            f"data size={source.size} is not the network's image_size={setup.network.image_size}"
        )
    setup.train.check_clip(source.frames)
    mesh = make_mesh(setup.mesh)
    parallel = mesh.shape["data"] * setup.train.microbatches
    if setup.train.batch_size % parallel:
        raise ValueError(
            f"train.batch_size={setup.train.batch_size} is not a multiple of "
            f"{mesh.shape['data']} devices x {setup.train.microbatches} microbatches"
        )
    if setup.train.sample_every and not len(open_source(setup.data, "test")):
        raise ValueError(
            f"{source.where} has no test videos to complete during training; set "
            "data.test_videos, or train.sample_every=0"
        )
    print(source.describe(), flush=True)
    with sole_user(setup.folder):
        state = start(setup, mesh)
        with jax.set_mesh(mesh):
            return _loop(setup, source, mesh, *state)


@contextlib.contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Keeps a second run out of the folder, where the file system has locks.

    Raises:
      ValueError: another process trains into it.
    """
    if jax.process_index() > 0:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ValueError(
            f"another process trains into run.output={folder}; wait for it or name another folder"
        ) from None
    except OSError:
        pass  # no locks here, as on some network disks
    remove_temporaries(folder)  # what a killed run left
    try:
        yield
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            folder.rmdir()  # if nothing came of the run


def start(setup: Setup, mesh) -> tuple[train.State, timesteps.LossHistory]:
    """The state to go on from: the latest checkpoint, a given model, or fresh parameters."""
    everywhere = replicated(mesh)
    process = make_process(setup.diffusion)
    history = timesteps.empty_history(process.steps)
    latest = checkpoint.latest_step(setup.folder / "checkpoints")
    if latest is not None:
        path = checkpoint.step_path(setup.folder / "checkpoints", latest)
        _check_same(setup, checkpoint.read_info(path))
    if setup.run.start_from:
        _check_start(setup)
        params = load_model(setup.run.start_from).params
    else:
        params = initial_parameters(setup.network, jax.random.key(setup.train.seed))
    state = train.initial_state(setup.train, params)
    if setup.run.start_from:
        state = _upstream_state(setup, state)
    state = jax.device_put(state, everywhere)
    if latest is None:
        return state, history
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere), state
    )
    state, history = checkpoint.restore(path, (like, history))
    print(f"resuming at update {latest}", flush=True)
    return state, history


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


def _check_same(setup: Setup, info: Mapping) -> None:
    found = info.get("setup")
    if found is None:
        raise ValueError(f"{setup.folder} holds no training run of ours; use another run.output")
    wanted = setup.fingerprint
    for section, fields in wanted.items():
        for field, value in fields.items():
            old = found[section].get(field)
            old = tuple(old) if isinstance(old, list) else old
            if old != value:
                raise ValueError(
                    f"{setup.folder} holds a run with {section}.{field}={old!r}, not {value!r}; "
                    "use its settings or another run.output"
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

    def __call__(self, step: int, history: timesteps.LossHistory) -> train.Batch:
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
        times, weights = self._timesteps(step, history)
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


def _loop(setup: Setup, source, mesh, state: train.State, history) -> train.State:
    config, process = setup.train, make_process(setup.diffusion)
    done = int(state.step)
    feed = Feed(setup, source, mesh, done)
    key = jax.random.key(config.seed + 1)
    step_function = jax.jit(
        lambda state, batch: train.train_step(
            config, setup.network, process, state, _floats(batch), key
        ),
        donate_argnums=0,
    )
    log = Log(setup, done) if jax.process_index() == 0 else None
    stop = _StopSignal(setup.run.stop_after)
    pending = []
    batch = feed(done, history) if done < config.steps else None
    while done < config.steps and not stop():
        state, metrics = step_function(state, batch)
        pending.append((batch.timestep, metrics))
        done += 1
        if config.timestep_sampler != "uniform":
            times, loss = (whole(a).ravel() for a in (batch.timestep, metrics["loss"]))
            history = timesteps.add_losses(history, times, loss)
        if done < config.steps:
            batch = feed(done, history)  # while the devices work
        if done % config.log_every == 0 or done == config.steps:
            _report(setup, log, done, pending, process.steps)
            pending = []
        if done % config.save_every == 0 and done < config.steps:
            means_of(setup, done, pending, process.steps)  # so that nothing diverged is saved
            save(setup, state, history, done)
        if log and config.sample_every and done % config.sample_every == 0:
            log.sample(setup, state, done)
    _report(setup, log, done, pending, process.steps)
    save(setup, state, history, done)
    if log:
        log.close()
    print(f"{'stopped' if done < config.steps else 'finished'} at update {done}", flush=True)
    return state


def _floats(batch: train.Batch) -> train.Batch:
    return batch._replace(clean=batch.clean.astype(jnp.float32) / 127.5 - 1)


def save(setup: Setup, state: train.State, history, step: int) -> None:
    """Writes the checkpoint to resume from, and each EMA as a model to sample from."""
    info = {"setup": setup.fingerprint}
    folder = setup.folder
    checkpoint.save_step(folder / "checkpoints", step, (state, history), info, setup.train.keep)
    arguments = upstream_arguments(setup)
    for rate, params in state.ema.items():
        model = Model(setup.network, setup.diffusion, params, arguments, step)
        save_model(folder / f"ema_{rate}", model, overwrite=True)


def _report(setup, log, step: int, pending, timestep_count: int) -> None:
    """Means since the last report to screen, CSV and TensorBoard."""
    means = means_of(setup, step, pending, timestep_count)
    if log and means:
        log.write(step, means)


class _StopSignal:
    """True once SIGTERM or SIGUSR1 came (a SLURM time limit) or the time is over."""

    def __init__(self, minutes: float):
        self.asked = False
        self.end = time.monotonic() + 60 * minutes if minutes else math.inf
        for name in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(name, self._ask)

    def _ask(self, *_):
        self.asked = True

    def __call__(self) -> bool:
        """The same in every process, of which one may be asked an update before the others."""
        asked = self.asked or time.monotonic() > self.end
        return bool(whole(np.array([asked])).any())
