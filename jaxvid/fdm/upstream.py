"""FDM's own PyTorch network beside ours: same weights, same inputs, timed in turn.

The code of the refactored generation comes from the user's own checkout of
https://github.com/plai-group/flexible-video-diffusion-modeling; nothing of it is kept here.
"""

import functools
import importlib
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from einops import rearrange
from ml_collections import ConfigDict

from jaxvid.fdm import keys, train
from jaxvid.fdm.benchmark import example_frames
from jaxvid.fdm.model import initial_parameters, network
from jaxvid.fdm.process import make_process
from jaxvid.fdm.setup import training_setup
from jaxvid.fdm.training_settings import Setup, upstream_arguments
from jaxvid.runs.benchmark import Subject

CLOSE = 1e-3  # largest relative difference that float32 sums in another order may cause


def paired_subjects(config: ConfigDict, checkout: str) -> tuple[Subject, Subject, dict]:
    """Ours and PyTorch's network and update of a training config, on random frames.

    Returns:
      Two subjects with the same stages, and JSON values that say how far their results agree.
    Raises:
      ValueError: no checkout there; settings that upstream does not have; results that differ.
    """
    if not config.run.output:
        config.run.output = "outputs/benchmark_run"  # named but not written
    setup = training_setup(config)
    if setup.network.indicator != "observed" or setup.train.microbatches != 1:
        raise ValueError(
            "--torch_checkout needs network.indicator='observed' and train.microbatch=-1"
        )
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    inputs = Inputs(setup)
    ours, theirs = Ours(setup, inputs), Theirs(setup, inputs, load(checkout, setup))
    agreement = compare(ours, theirs)
    facts = {"threads": torch.get_num_threads(), "dtype": setup.network.dtype}
    subjects = [
        Subject(name, {}, {"one evaluation": side.evaluate, "one update": side.update}, facts)
        for name, side in (("jaxvid", ours), ("PyTorch", theirs))
    ]
    return *subjects, {"agreement": agreement}


class Inputs:
    """Weights and one training batch, as NumPy arrays; initial zeros are filled with noise."""

    def __init__(self, setup: Setup):
        config, b, t = setup.network, setup.train.batch_size, setup.train.max_frames
        rng = np.random.default_rng(0)

        def normal(shape, scale=1.0):
            return (scale * rng.standard_normal(shape)).astype(np.float32)

        params = initial_parameters(config, jax.random.key(0))
        self.params = jax.tree.map(lambda a: np.asarray(a) + normal(a.shape, 0.01), params)
        shape = (b, t, config.image_size, config.image_size, config.image_channels)
        self.x, self.clean = normal(shape), np.clip(normal(shape, 0.5), -1, 1)
        self.frames = jax.tree.map(np.asarray, example_frames(b, t))
        self.timestep = rng.integers(setup.diffusion.steps, size=b)


class Ours:
    """jaxvid's side; the noise of an update follows from the key, so it is found out here."""

    def __init__(self, setup: Setup, inputs: Inputs):
        process, key = make_process(setup.diffusion), jax.random.key(1)
        self.state = train.initial_state(setup.train, jax.tree.map(jnp.asarray, inputs.params))
        self.times = jnp.asarray(process.network_timesteps)[inputs.timestep]
        self.x, self.clean = jnp.asarray(inputs.x), jnp.asarray(inputs.clean)
        self.frames = jax.tree.map(jnp.asarray, inputs.frames)
        self.network = jax.jit(functools.partial(network, setup.network))
        count = np.ones(len(inputs.x), np.float32)
        batch = train.Batch(self.clean, self.frames, jnp.asarray(inputs.timestep), count, None)
        self.batch = jax.tree.map(lambda a: jnp.asarray(a)[None], batch)
        self.step = jax.jit(
            lambda state, batch: train.train_step(
                setup.train, setup.network, process, state, batch, key
            ),
            donate_argnums=0,
        )
        noise_key, _ = jax.random.split(jax.random.fold_in(key, 0))
        videos = [train.video_noise(noise_key, row, x.shape) for row, x in enumerate(inputs.clean)]
        self.noise = np.stack(videos)

    def evaluate(self):
        """One evaluation of the network: (b, t, h, w, c)."""
        return self.network(
            self.state.params, self.x, self.clean, self.times, self.frames
        ).block_until_ready()

    def update(self) -> dict:
        """One update: gradient, AdamW, EMA; returns loss and gradient norm."""
        self.state, metrics = jax.block_until_ready(self.step(self.state, self.batch))
        return {"loss": float(metrics["loss"].mean()), "grad_norm": float(metrics["grad_norm"])}


class Theirs:
    """PyTorch's side: upstream's network, loss and EMA, and the optimiser that it uses."""

    def __init__(self, setup: Setup, inputs: Inputs, upstream):
        self.model, self.diffusion, self.update_ema = upstream
        tensors = keys.state_dict(inputs.params)
        state = {name: torch.from_numpy(np.array(a)) for name, a in tensors.items()}
        self.model.load_state_dict(state)
        self.parameters = list(self.model.parameters())
        self.rates = setup.train.ema_rates
        self.ema = [[p.detach().clone() for p in self.parameters] for _ in self.rates]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=setup.train.lr, weight_decay=setup.train.weight_decay
        )
        self.x, self.clean = torch_video(inputs.x), torch_video(inputs.clean)
        self.masks = {
            "obs_mask": torch_mask(inputs.frames.observed),
            "latent_mask": torch_mask(inputs.frames.latent),
            "frame_indices": torch.from_numpy(np.array(inputs.frames.indices)),
        }
        self.timestep = torch.from_numpy(inputs.timestep)
        process = make_process(setup.diffusion)
        self.times = torch.tensor(np.asarray(process.network_timesteps)[inputs.timestep])

    def evaluate(self):
        """One evaluation of the network: (b, t, h, w, c)."""
        with torch.no_grad():
            out, _ = self.model(self.x, x0=self.clean, timesteps=self.times, **self.masks)
        return rearrange(out.numpy(), "b t c h w -> b t h w c")

    def update(self, noise=None) -> dict:
        """One update: gradient, AdamW, EMA; returns loss and gradient norm."""
        self.optimizer.zero_grad()
        terms = self.diffusion.training_losses(
            self.model,
            self.clean,
            self.timestep,
            model_kwargs=self.masks | {"x0": self.clean},
            noise=None if noise is None else torch_video(noise),
            latent_mask=1 - self.masks["obs_mask"],
            eval_mask=self.masks["latent_mask"],
        )
        loss = terms["loss"].mean()
        loss.backward()
        norm = sum((p.grad**2).sum().item() for p in self.parameters) ** 0.5
        self.optimizer.step()
        for rate, ema in zip(self.rates, self.ema, strict=True):
            self.update_ema(ema, self.parameters, rate=rate)
        return {"loss": loss.item(), "grad_norm": norm}


def torch_video(a):
    """(b, t, h, w, c) to upstream's (b, t, c, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(rearrange(a, "b t h w c -> b t c h w")))


def torch_mask(a):
    """(b, t) to upstream's (b, t, 1, 1, 1)."""
    return torch.from_numpy(rearrange(np.array(a, np.float32), "b t -> b t 1 1 1"))


def load(checkout: str, setup: Setup):
    """Upstream's network and diffusion for the settings, and its function that updates an EMA."""
    sys.path.insert(0, str(check_checkout(checkout)))
    scripts = importlib.import_module("improved_diffusion.script_util")
    arguments = scripts.model_and_diffusion_defaults()
    wanted = upstream_arguments(setup)
    arguments |= {name: value for name, value in wanted.items() if name in arguments}
    model, diffusion = scripts.create_model_and_diffusion(**arguments)
    return model, diffusion, importlib.import_module("improved_diffusion.nn").update_ema


def check_checkout(checkout: str) -> Path:
    """The folder of upstream's code; ValueError if it is none."""
    folder = Path(checkout).expanduser()
    if not (folder / "improved_diffusion" / "script_util.py").is_file():
        raise ValueError(f"--torch_checkout={checkout} holds no improved_diffusion/script_util.py")
    return folder


def compare(ours: Ours, theirs: Theirs) -> dict:
    """Evaluates and updates both once; ValueError where they do not agree."""
    a, b = np.asarray(ours.evaluate()), theirs.evaluate()
    found = {"evaluation": float(np.abs(a - b).max() / np.abs(b).max())}
    ours_found, theirs_found = ours.update(), theirs.update(ours.noise)
    for name, value in theirs_found.items():
        found[name] = abs(ours_found[name] - value) / abs(value)
    if wrong := {name: value for name, value in found.items() if not value < CLOSE}:
        raise ValueError(f"jaxvid and PyTorch disagree, relative differences {wrong}")
    print("relative differences:", ", ".join(f"{k} {v:.1e}" for k, v in found.items()), flush=True)
    return {name: float(f"{value:.2e}") for name, value in found.items()}
