"""Sampling with FDM itself, small: twelve requests of a random network, for tests of runs."""

import sys
from pathlib import Path
from types import SimpleNamespace

import random_params

from jaxvid.fdm import cost, sample
from jaxvid.fdm.model import Model, abstract_parameters, save_model
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.unet import UNetConfig

ROOT = Path(__file__).parents[1]
NETWORK = UNetConfig(image_size=16, channels=32, channel_mult=(1, 1), attention_at=(1,))
SETTINGS = {
    "data.frames": 28,
    "data.size": 16,
    "data.test_videos": 12,
    "sampling.n_obs": 4,
    "sampling.max_frames": 6,
    "sampling.step_size": 3,
    "sampling.respacing": "ddim25",
    "sampling.batch_size": 1,
    "sampling.video_size": 16,
}


def command(folder: Path) -> str:
    """Writes the network to `folder`; in the command {output} stands for the output folder."""
    params = random_params.everywhere(abstract_parameters(NETWORK), 0.05)
    arguments = {"max_frames": 6, "dataset": "maze_walk"}
    save_model(folder / "model", Model(NETWORK, DiffusionConfig(), params, arguments, 1))
    flags = [f"--config.{name}={value}" for name, value in SETTINGS.items()]
    flags += [f"--config.checkpoint={folder}/model", "--config.run.output={output}"]
    script = f"{sys.executable} {ROOT}/scripts/sample.py --config={ROOT}/configs/fdm_demo.py:mazes"
    return " ".join([script, *flags])


def replace_network(monkeypatch) -> None:
    """In place of denoising: noise is mixed with what is observed, in an instant."""

    def mixed(config, process, params, x0, frames, noise, **_):
        weight = frames.observed * (1 + frames.indices % 5)
        return 0.1 * noise(0) + (x0 * weight[..., None, None, None]).mean(1, keepdims=True)

    monkeypatch.setattr(sample, "load_model", lambda *_: SimpleNamespace(params={}))
    monkeypatch.setattr(sample, "denoise_window", mixed)
    monkeypatch.setattr(cost, "evaluation_flops", lambda *_: 1e6)  # the true one is traced
    monkeypatch.setattr(cost, "memory_bytes", lambda *_: 2**20)
