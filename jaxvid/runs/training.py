"""A training run of any system: updates, log, checkpoints, sample videos; resumes exactly."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax

from jaxvid.core import checkpoint
from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.runs.training_guard import StopSignal, check_same, sole_user
from jaxvid.runs.training_log import Log, check_finite
from jaxvid.runs.training_settings import Loop, RunConfig

State = Any  # a pytree of device arrays, host arrays and numbers: all that an update changes
Batch = Any
Feed = Callable[[int, State], Batch]  # the batch of update `step`, of (seed, step, state) alone


class System(Protocol):
    """The checked settings of a training run, in the order in which the loop asks.

    `open` comes first and sees the devices; before it nothing may touch them. What it refuses, it
    refuses before parameters are read.

    Attributes:
      mesh: devices along each axis.
      advice: what may help when the loss is not finite, such as "Lower train.lr=0.1".
      fingerprint: settings by section that a resumed run must share with the one it continues.
    """

    run: RunConfig
    loop: Loop
    mesh: MeshConfig
    advice: str
    fingerprint: Mapping[str, Mapping]

    def open(self, mesh: jax.sharding.Mesh) -> None:
        """Opens the data; ValueError, in one line, if it or the devices do not fit the settings."""

    def initial_state(self) -> State:
        """The state before the first update, on the devices."""

    def abstract_state(self) -> State:
        """Shapes and places of the state, to read a checkpoint into; host arrays as themselves."""

    def feed(self, start: int) -> Feed:
        """Batches from update `start` on; it is asked for every update once, in order."""

    def update(self, state: State, batch: Batch) -> tuple[State, Any]:
        """One update, which consumes the state, and its metrics."""

    def means(self, pending: Sequence) -> dict[str, float]:
        """Means of the metrics of some updates (`training_log.plain_means` does it)."""

    def sample(self, state: State, step: int) -> None:
        """Writes sample videos; every process calls it."""

    def export(self, state: State, step: int) -> None:
        """Writes models to sample from; every process calls it."""


def run(system: System, devices: Sequence[jax.Device] | None = None) -> State:
    """Trains until `loop.steps`; continues the run found in `run.output`.

    Args:
      devices: to use, by default all.
    Raises:
      ValueError: settings, data or the checkpoint to start from do not fit.
      training_log.DivergedError: the loss is no longer finite.
    """
    mesh = make_mesh(system.mesh, devices)
    system.open(mesh)
    with sole_user(system.run.folder), jax.set_mesh(mesh):
        return _loop(system, *start(system))


def start(system: System) -> tuple[State, int]:
    """The state to go on from, the latest checkpoint or the initial one, and its update."""
    folder = system.run.folder
    latest = checkpoint.latest_step(folder / "checkpoints")
    if latest is None:
        return system.initial_state(), 0
    path = checkpoint.step_path(folder / "checkpoints", latest)
    check_same(folder, system.fingerprint, checkpoint.read_info(path))
    state = checkpoint.restore(path, system.abstract_state())
    print(f"resuming at update {latest}", flush=True)
    return state, latest


def _loop(system: System, state: State, done: int) -> State:
    loop = system.loop
    feed = system.feed(done)
    log = Log(system.run.folder, loop, done) if jax.process_index() == 0 else None
    stop = StopSignal(system.run.stop_after)
    pending = []
    batch = feed(done, state) if done < loop.steps else None
    while done < loop.steps and not stop():
        state, metrics = system.update(state, batch)
        pending.append(metrics)
        done += 1
        if done < loop.steps:
            batch = feed(done, state)  # while the devices work
        if done % loop.log_every == 0 or done == loop.steps:
            _report(system, log, done, pending)
            pending = []
        if done % loop.save_every == 0 and done < loop.steps:
            _checked_means(system, done, pending)  # so that nothing diverged is saved
            save(system, state, done)
        if loop.sample_every and done % loop.sample_every == 0:
            system.sample(state, done)
    _report(system, log, done, pending)
    save(system, state, done)
    if log:
        log.close()
    print(f"{'stopped' if done < loop.steps else 'finished'} at update {done}", flush=True)
    return state


def save(system: System, state: State, step: int) -> None:
    """Writes the checkpoint to resume from, and the models to sample from."""
    info = {"setup": system.fingerprint}
    checkpoint.save_step(system.run.folder / "checkpoints", step, state, info, system.loop.keep)
    system.export(state, step)


def _report(system: System, log: Log | None, step: int, pending: Sequence) -> None:
    means = _checked_means(system, step, pending)
    if log and means:
        log.write(step, means)


def _checked_means(system: System, step: int, pending: Sequence) -> dict[str, float]:
    """Means since the last report; raises if they show that the run has diverged."""
    if not pending:
        return {}
    means = system.means(pending)
    saved = checkpoint.latest_step(system.run.folder / "checkpoints")
    check_finite(means, step, saved, system.advice)
    return means
