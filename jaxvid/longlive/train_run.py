"""LongLive as a training run; see runs/training.py for the loop."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxvid.core.mesh import replicated
from jaxvid.longlive import distillation, stream, train_state, train_steps
from jaxvid.longlive.recipe import Kind, Recipe
from jaxvid.longlive.split import check_split
from jaxvid.longlive.train_data import Feed, Turn, open_data
from jaxvid.longlive.train_export import export
from jaxvid.longlive.train_preview import write_previews
from jaxvid.longlive.train_setup import Setup, training_setup
from jaxvid.longlive.train_state import State
from jaxvid.longlive.train_steps import Batch, Learner
from jaxvid.runs.fingerprint import hash_json
from jaxvid.runs.training_log import plain_means
from jaxvid.runs.training_settings import loop_of
from jaxvid.wan import vae, vae_keys

TURNS = 4  # at most, of an update


def from_config(config: ConfigDict) -> "LongLiveTraining":
    """The run that a config describes; raises ValueError, see train_setup.training_setup."""
    return LongLiveTraining(training_setup(config))


class LongLiveTraining:
    """A training run of any of LongLive's stages; see runs.training.System."""

    def __init__(self, setup: Setup):
        self.setup, self.run, self.mesh = setup, setup.run, setup.mesh
        self.recipe = setup.recipe
        self.loop = loop_of(setup.train)
        critic = f" and train.critic_lr={setup.train.critic_lr}" if setup.train.distils else ""
        self.advice = f"Lower train.lr={setup.train.lr}{critic}"
        self.fingerprint = setup.fingerprint

    def open(self, mesh) -> None:
        size, devices = self.setup.train.batch_size, mesh.shape["data"]
        if size % devices:
            raise ValueError(
                f"train.batch_size={size} is not a multiple of mesh.data={devices}: "
                f"use {-(-size // devices) * devices}"
            )
        if devices % jax.process_count():
            raise ValueError(
                f"mesh.data={devices} is not a multiple of the {jax.process_count()} processes, "
                "each of which reads its own part of a batch"
            )
        self._check_split(mesh)
        self.devices = mesh
        self.like = train_state.abstract_state(self.setup, mesh)
        self.source = open_data(self.setup)
        self.fingerprint["data"]["listed"] = hash_json(self.source.listing())
        print(f"train: {self.source.describe()}", flush=True)

    def _check_split(self, mesh) -> None:
        """ValueError for heads, or tokens of a pass, that the devices cannot share."""
        setup, train = self.setup, self.setup.train
        networks = [setup.network, *([setup.critic, setup.teacher] if train.distils else [])]
        in_blocks = train.distils or train.sample_every
        frames = setup.rollout.block if in_blocks else train.frames
        check_split(mesh, networks, setup.latent_shape, frames)

    def initial_state(self) -> State:
        return train_state.initial_state(self.setup, self.devices)

    def abstract_state(self) -> State:
        return self.like

    def feed(self, start: int) -> Callable:
        self.batches = Feed(self.setup, self.source, self.devices)
        return lambda step, state: self.batches(step, state.position)

    def update(self, state: State, batch: Batch | list[Turn]) -> tuple[State, dict]:
        if not self.setup.train.distils:
            learner, metrics = self._regress(
                state.generator, self.frozen.get("generator"), batch, self._key(state.step, 0),
                np.int32(state.step),
            )  # fmt: skip
            return state._replace(step=state.step + 1, generator=learner), metrics
        metrics = {}
        for number, turn in enumerate(batch):
            state, found = self._turn(state, turn, number)
            metrics |= found
        return state._replace(step=state.step + 1), metrics

    def means(self, pending: Sequence) -> dict[str, float]:
        return plain_means(pending)

    def sample(self, state: State, step: int) -> None:
        write_previews(self, state, step)

    def export(self, state: State, step: int) -> None:
        export(self.setup, state, step)

    @functools.cached_property
    def frozen(self) -> dict:
        """The networks that do not learn."""
        return train_state.load_frozen(self.setup, self.devices)

    @functools.cached_property
    def vae(self) -> dict:
        """The VAE's parameters, on all devices."""
        return vae_keys.load_or_draw(self.setup.models, self.setup.vae, self.devices)

    def _key(self, step: int, turn: int):
        return jax.random.fold_in(jax.random.key(self.setup.train.seed + 1), step * TURNS + turn)

    def _turn(self, state: State, turn: Turn, number: int) -> tuple[State, dict]:
        """One rollout and what is learnt from it."""
        train, (who, chunk, batch) = self.setup.train, turn
        kind = self.recipe.kind(chunk)
        before = None if kind.fresh else state.stream
        image = self._image(state.stream.recent) if before and train.image_first else None
        steps = len(self.setup.rollout.steps)
        last = (
            self.frozen, before, batch, image, self._key(state.step, number),
            np.int32(stream.exit_step(train, state.step, number, steps)), np.int32(state.step),
        )  # fmt: skip
        state = state._replace(stream={}, position=chunk.end)
        if who == "nobody":
            return state._replace(stream=self._make_only(kind)(state.generator.params, *last)), {}
        learner = getattr(state, who)
        other = state.critic if who == "generator" else state.generator
        learner, after, metrics = self._teach(who, kind)(learner, other.params, *last)
        return state._replace(**{who: learner}, stream=after), metrics

    @functools.cached_property
    def _regress(self) -> Callable:
        return regressing(self.recipe, self.like.generator)

    @functools.cache  # noqa: B019
    def _teach(self, who: str, kind: Kind) -> Callable:
        """The program of a turn, which consumes the learner and the stream."""
        return teaching(self.recipe, self.like, who, kind)

    @functools.cache  # noqa: B019
    def _make_only(self, kind: Kind) -> Callable:
        def make(generator, frozen, before, batch, image, key, exit_step, step):
            del image, step
            return distillation.make_only(
                self.recipe, kind, generator, frozen, before, batch, key, exit_step
            )

        places = jax.tree.map(lambda a: a.sharding, self.like.stream)
        return jax.jit(make, donate_argnums=2, out_shardings=places)

    @functools.cached_property
    def _image(self) -> Callable:
        function = jax.jit(functools.partial(first_as_image, self.setup))
        return lambda recent: function(self.vae, recent)


def regressing(recipe: Recipe, like: Learner) -> Callable:
    """The jitted update by given videos; like: shapes and places of the generator."""
    places = jax.tree.map(lambda a: a.sharding, like)
    function = functools.partial(train_steps.regress, recipe)
    return jax.jit(function, donate_argnums=0, out_shardings=(places, None))


def teaching(
    recipe: Recipe, like: State, who: str, kind: Kind, exit_step: int | None = None
) -> Callable:
    """The jitted program of a turn of the generator or the critic.

    Args:
      like: shapes and places of the state; the stream is given back only if it goes on.
      exit_step: fixes this argument of the program.
    """
    teach = {"generator": distillation.teach_generator, "critic": distillation.teach_critic}[who]

    def turn(*arguments):
        if exit_step is not None:
            arguments = (*arguments[:-2], exit_step, arguments[-1])
        learner, after, metrics = teach(recipe, kind, *arguments)
        return learner, after if like.stream else {}, metrics

    places = jax.tree.map(lambda a: a.sharding, (getattr(like, who), like.stream))
    everywhere = replicated(jax.tree.leaves(places)[0].mesh)
    return jax.jit(turn, donate_argnums=(0, 3), out_shardings=(*places, everywhere))


def first_as_image(setup: Setup, params, recent):
    """The first frame of the next loss clip, coded as a video of its own, (b, 1, h, w, c).

    The frames known up to it are decoded as a video, of which the last picture is coded anew.
    """
    known = recent[:, -setup.train.frames :][:, : setup.train.new_frames + 1]
    video = vae.decode(setup.vae, params, known, setup.rollout.block)
    return vae.encode(setup.vae, params, jnp.clip(video[:, -1:], -1, 1))
