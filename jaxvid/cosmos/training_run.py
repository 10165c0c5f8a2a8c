"""Cosmos post-training as a run: inputs made once, updates, models; see runs/training.py."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jaxvid.core import checkpoint
from jaxvid.core.mesh import over_data, shardings
from jaxvid.cosmos import losses, train, train_models
from jaxvid.cosmos.train import Batch, State
from jaxvid.cosmos.train_data import open_data
from jaxvid.cosmos.train_inputs import Inputs
from jaxvid.cosmos.train_setup import Setup, training_setup
from jaxvid.runs.fingerprint import hash_json
from jaxvid.runs.step_table import StepTable
from jaxvid.runs.training_log import plain_means
from jaxvid.runs.training_settings import loop_of
from jaxvid.wan.lora import merge

LEVELS = (0.9, 0.6, 0.3)  # of noise, at which it is measured how the control is followed


def from_config(config: ConfigDict) -> "CosmosTraining":
    """The run that a config describes; raises ValueError, see train_setup.training_setup."""
    return CosmosTraining(training_setup(config))


class CosmosTraining:
    """A training run of Cosmos; see runs.training.System."""

    def __init__(self, setup: Setup):
        self.setup, self.run, self.mesh = setup, setup.run, setup.mesh
        self.loop = loop_of(setup.train)
        self.advice = f"Lower train.lr={setup.train.lr}"
        self.fingerprint = setup.fingerprint

    def open(self, mesh) -> None:
        setup, self.devices = self.setup, mesh
        if setup.train.batch_size % mesh.shape["data"]:
            raise ValueError(
                f"train.batch_size={setup.train.batch_size} is not a multiple of mesh.data="
                f"{mesh.shape['data']}; use mesh.seq=-1 to share one sample out"
            )
        train_models.abstract_parameters(setup, mesh)  # raises if the devices do not divide them
        self.source = open_data(setup.data)
        listed = [self.source.names, self.source.captions]
        self.fingerprint["data"]["listed"] = hash_json(listed)
        print(self.source.describe(), flush=True)
        self.inputs = Inputs(setup, self.source)
        self.inputs.prepare()

    def initial_state(self) -> State:
        trained, self.frozen = self._divided()
        begin = functools.partial(train.initial_state, self.setup.train)
        return jax.jit(begin, out_shardings=self._places)(trained)

    def abstract_state(self) -> State:
        return jax.tree.map(
            lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place),
            _abstract_state(self.setup, self.devices),
            self._places,
        )

    def feed(self, start: int) -> "Feed":
        if jax.process_index() == 0:
            self.table = StepTable(self.run.folder / "control.csv", start)
        return Feed(self.setup, self.inputs, self.devices)

    def update(self, state: State, batch: Batch):
        return self._step(state, self.frozen, batch)

    def means(self, pending: Sequence) -> dict[str, float]:
        return plain_means(pending)

    def sample(self, state: State, step: int) -> None:
        """Measures whether the control is followed, see `control_losses`."""
        own, mirrored = (np.asarray(a) for a in self._measure(state.ema, self.frozen, self._fixed))
        row = {"step": step, "loss": float(own), "loss_mirrored": float(mirrored)}
        print(
            f"control at update {step}: loss {own:.4f}, {mirrored:.4f} with the control mirrored",
            flush=True,
        )
        if jax.process_index() == 0:
            self.table.append(row)

    def export(self, state: State, step: int) -> None:
        """The averaged parameters as a model to sample from, and adapters by themselves."""
        network = dataclasses.replace(self.setup.network, remat=False)
        kind = "cosmos_multiview_crossview" if network.cross_view else "cosmos_multiview"
        info = {"model": kind, "kind": kind, "network": dataclasses.asdict(network), "step": step}
        params = self._merged(state.ema, self.frozen)
        checkpoint.save(self.run.folder / "model", params, info, overwrite=True)
        if self.setup.train.part == "lora":
            strength = dataclasses.asdict(self.setup.train.lora)
            info |= {"model": "cosmos_lora", "kind": "cosmos_lora", "lora": strength}
            checkpoint.save(self.run.folder / "lora", state.ema, info, overwrite=True)

    @functools.cached_property
    def frozen(self) -> dict:
        """The parameters that stay; a resumed run reads them again."""
        return self._divided()[1]

    def _divided(self) -> tuple[dict, dict]:
        """What is trained and what stays, on the devices."""
        params = train_models.load(self.setup, self.devices)
        divide, key = functools.partial(train.divide, self.setup.train), self._keys[1]
        if self.setup.train.part != "lora":
            return divide(params, key)
        like = jax.eval_shape(lambda: divide(params, key)[0])
        places = shardings(like, train.RULES, self.devices)
        return jax.jit(lambda p: divide(p, key)[0], out_shardings=places)(params), params

    @functools.cached_property
    def _places(self) -> State:
        return shardings(_abstract_state(self.setup, self.devices), train.RULES, self.devices)

    @functools.cached_property
    def _keys(self):
        """Of the noise, and of fresh adapters."""
        return jax.random.split(jax.random.key(self.setup.train.seed))

    @functools.cached_property
    def _step(self):
        return update_function(self.setup, self._places, self._keys[0])

    @functools.cached_property
    def _merged(self):
        setup = self.setup

        def merged(trained, frozen):
            params = train.assemble(setup.train, trained, frozen, join=merge)
            return jax.tree.map(lambda a: a.astype(setup.models.dtype), params)

        return jax.jit(merged)

    @functools.cached_property
    def _fixed(self) -> Batch:
        """A batch that is always the same, with all text and no frame given."""
        rows = [i % len(self.source) for i in range(self.setup.train.batch_size)]
        return make_batch(self.setup, self.inputs, self.devices, [(i, False, 0, 0) for i in rows])

    @functools.cached_property
    def _measure(self):
        return jax.jit(functools.partial(control_losses, self.setup, self._keys[0]))


def update_function(setup: Setup, places: State, key, jit=jax.jit):
    """The jitted update (state, frozen, batch) -> (state, metrics); it consumes the state."""

    def update(state, frozen, batch):
        return train.train_step(setup.train, setup.network, state, frozen, batch, key)

    return jit(update, donate_argnums=0, out_shardings=(places, None))


def _abstract_state(setup: Setup, mesh) -> State:
    params = train_models.abstract_parameters(setup, mesh)
    config = setup.train
    trained = jax.eval_shape(lambda p: train.divide(config, p, jax.random.key(0))[0], params)
    return jax.eval_shape(functools.partial(train.initial_state, config), trained)


def control_losses(setup: Setup, key, trained, frozen, batch: Batch):
    """Mean loss at LEVELS of noise, with the right control and with it mirrored left to right.

    A network that follows its control does worse with the second.
    """
    config, network = setup.train, setup.network
    params = train.rounded(network, train.assemble(config, trained, frozen))
    noise = train.batch_noise(key, batch.latents.shape)

    def at(inputs):
        level, mirrored = inputs
        control = jnp.where(mirrored, batch.control[..., ::-1, :], batch.control)
        changed = batch._replace(sigma=jnp.full(batch.sigma.shape, level), control=control)
        return train.loss(config, network, params, changed, noise)

    levels = jnp.array(LEVELS * 2)
    found = jax.lax.map(at, (levels, jnp.arange(len(levels)) >= len(LEVELS)))
    return found[: len(LEVELS)].mean(), found[len(LEVELS) :].mean()


class Feed:
    """Batches as a function of (seed, step): a resumed run reads the same."""

    def __init__(self, setup: Setup, inputs: Inputs, mesh):
        self.setup, self.inputs, self.mesh = setup, inputs, mesh

    def __call__(self, step: int, state: State) -> Batch:
        rows = [self._row(step, row) for row in range(self.setup.train.batch_size)]
        return make_batch(self.setup, self.inputs, self.mesh, rows)

    def _row(self, step: int, row: int) -> tuple[int, bool, int, float]:
        """Sample, whether its text is dropped, given latent frames, noise level."""
        config = self.setup.train
        rng = np.random.default_rng([config.seed, step, row])
        dropped = rng.random() < config.text_dropout
        odds = np.array(config.given_frames)
        given = rng.choice(len(odds), p=odds / odds.sum())
        u = 1 / (1 + np.exp(-rng.standard_normal()))
        epoch, place = divmod(step * config.batch_size + row, len(self.inputs.source))
        index = _order(config.seed, epoch, len(self.inputs.source))[place]
        return int(index), bool(dropped), int(given), float(losses.sigma_of(u, config.shift))


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, samples: int) -> np.ndarray:
    """The samples in the order of one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(samples)


def make_batch(setup: Setup, inputs: Inputs, mesh, rows: Sequence) -> Batch:
    """The batch of rows (sample, text dropped, given frames, noise level) on the devices.

    A process reads the rows of its devices only.
    """
    frames, place = setup.latent_shape[0], over_data(mesh)
    latents = functools.cache(lambda row: inputs.latents(rows[row][0]))

    def given(row):
        count = np.arange(frames) < rows[row][2]
        return np.broadcast_to(count, (len(setup.data.ids), frames)).astype(np.float32)

    def array(function, shape, dtype):
        def part(index):
            return np.stack([function(row) for row in range(*index[0].indices(len(rows)))])

        shape = (len(rows), *shape)
        return jax.make_array_from_callback(shape, place, part, dtype=dtype)

    views = len(setup.data.ids)
    size, dtype = (views, *setup.latent_shape), setup.models.dtype
    words = functools.cache(lambda row: inputs.words(*rows[row][:2]))
    ids = np.array(setup.data.ids, np.int32)
    everywhere = NamedSharding(mesh, P())
    return Batch(
        latents=array(lambda row: latents(row)[0], size, dtype),
        control=array(lambda row: latents(row)[1], size, dtype),
        text=array(words, (views, *inputs.words_shape), dtype),
        sigma=array(lambda row: np.float32(rows[row][3]), (), np.float32),
        given=array(given, (views, frames), np.float32),
        view_ids=jax.make_array_from_callback(ids.shape, everywhere, lambda i: ids[i]),
    )
