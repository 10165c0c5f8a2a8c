"""Makes the ODE pairs of a list of prompts with a bidirectional network."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxvid.core import checkpoint
from jaxvid.core.files import locked, remove_temporaries
from jaxvid.core.mesh import make_mesh, over_data
from jaxvid.core.noise import normal, request_key
from jaxvid.longlive import models, ode_pairs, train_state
from jaxvid.longlive.ode_pairs import PairsConfig
from jaxvid.longlive.train_prompts import read_prompts
from jaxvid.longlive.train_setup import Setup
from jaxvid.runs.fingerprint import hash_json
from jaxvid.wan import dit
from jaxvid.wan.dit import Dit
from jaxvid.wan.umt5 import pad_rows


def make_pairs(
    setup: Setup, how: PairsConfig, folder: Path, limit: int = 0, batch_size: int = 1
) -> None:
    """Writes a pair for each prompt that has none yet.

    Raises:
      ValueError: prompts or settings that do not fit, a folder of other pairs, or one that another
        process works in.
    """
    setup = dataclasses.replace(setup, models=dataclasses.replace(setup.models, dtype="float32"))
    mesh = make_mesh(setup.mesh)
    wide = mesh.shape["data"]
    count = -(-max(batch_size, 1) // wide) * wide
    how.kept(setup.rollout.steps)
    listed = [row[0] for row in read_prompts(setup.data, pairs=False)]
    prompts = listed[: limit or None]
    with locked(folder, f"another process makes pairs in {folder}; wait for it"):
        remove_temporaries(folder)
        ode_pairs.write_note(folder, how, setup.rollout.steps, origin(setup, listed))
        paths = {i: folder / f"{i:06d}.npz" for i in range(len(prompts))}
        missing = [i for i, path in paths.items() if not path.exists()]
        print(f"{len(prompts)} prompts, {len(prompts) - len(missing)} have pairs", flush=True)
        if not missing:
            return
        texts = models.embed(setup, [*(prompts[i] for i in missing), setup.data.negative_prompt])
        part = train_state.parts(setup)["generator"]
        with jax.set_mesh(mesh):
            run = _Solver(setup, how, part, mesh)
            for start in range(0, len(missing), count):
                chosen = missing[start : start + count]
                found = run([prompts[i] for i in chosen], chosen, texts, count)
                for i, latents in zip(chosen, found, strict=False):
                    ode_pairs.write_pair(paths[i], latents, prompts[i])
                print(f"{min(start + count, len(missing))}/{len(missing)} made", flush=True)


def origin(setup: Setup, prompts: Sequence[str]) -> dict:
    """What pairs are made of, all of it but the settings of the way: JSON values by name."""
    files = setup.models
    if files.random:
        network = ["random", files.random_seed, dataclasses.asdict(setup.network)]
    else:
        network = [checkpoint.identity(files.transformer), files.use_ema]
    return {
        "shape": [setup.train.frames, *setup.latent_shape],
        "seed": setup.train.seed,
        "prompts": hash_json(prompts),
        "negative_prompt": setup.data.negative_prompt,
        "transformer": hash_json(network),
        "text": models.text_identity(setup),
    }


class _Solver:
    """The network and one compiled call of all Euler steps."""

    def __init__(self, setup: Setup, how: PairsConfig, part, mesh):
        self.setup, self.place = setup, over_data(mesh)
        places = train_state.places_of(dit.abstract_parameters(part.config), mesh)
        self.params = train_state.read(setup, part, "float32", places)
        self.call = jax.jit(functools.partial(solve, setup, how))

    def __call__(self, prompts, numbers, texts: dict, count: int):
        """(b, p + 1, t, h, w, c); the last prompt fills the batch up."""
        filled = [*prompts, *[prompts[-1]] * (count - len(prompts))]
        numbers = [*numbers, *[numbers[-1]] * (count - len(numbers))]
        length, negative = self.setup.network.text_length, self.setup.data.negative_prompt
        keys = jnp.stack([request_key(self.setup.train.seed, f"pair {i}") for i in numbers])
        rows = [pad_rows([texts[p] for p in few], length) for few in (filled, [negative] * count)]
        return self.call(self.params, *jax.device_put((*rows, keys), self.place))


def solve(setup: Setup, how: PairsConfig, params, text, negative, keys):
    """All points of the way of a batch; keys: (b,)."""
    shape = (setup.train.frames, *setup.latent_shape)
    noise = jax.vmap(lambda key: normal(key, shape))(keys)

    def velocity(x, timestep):
        both = jnp.concatenate([x, x])
        times = jnp.full((both.shape[0], 1), timestep)
        words = jnp.concatenate([text, negative])
        found = Dit(setup.network).apply({"params": params}, both, times, words)[0]
        return jnp.split(found, 2)

    return ode_pairs.trajectory(velocity, how, noise, setup.rollout.steps)
