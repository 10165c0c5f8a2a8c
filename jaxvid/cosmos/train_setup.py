"""Checked settings of Cosmos post-training from a config file."""

import dataclasses
import json
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jaxvid.core import checkpoint
from jaxvid.core.config import build
from jaxvid.core.mesh import MeshConfig
from jaxvid.cosmos import files, keys, networks
from jaxvid.cosmos.dit import DitConfig
from jaxvid.cosmos.prompts import PromptConfig, PromptSettings, prompt_settings
from jaxvid.cosmos.sample_config import ModelConfig, check_release
from jaxvid.cosmos.text import TextConfig
from jaxvid.cosmos.train import TrainConfig
from jaxvid.cosmos.train_data import DataConfig
from jaxvid.runs.training_settings import LOOP_FIELDS, RunConfig
from jaxvid.wan.vae import VaeConfig

SHAPES = {"network": DitConfig, "vae": VaeConfig, "encoder": TextConfig}  # random ones
SECTIONS = {
    "data": DataConfig,
    "train": TrainConfig,
    "text": PromptConfig,
    "models": ModelConfig,
    "run": RunConfig,
    "mesh": MeshConfig,
}


@dataclasses.dataclass(frozen=True)
class Setup:
    """All settings of a run; `network` is as it is trained."""

    data: DataConfig
    train: TrainConfig
    text: PromptSettings
    models: ModelConfig
    run: RunConfig
    mesh: MeshConfig
    network: DitConfig
    vae: VaeConfig

    def __post_init__(self):
        self.run.check()
        if self.run.start_from:
            raise ValueError(
                f"run.start_from={self.run.start_from}: here models.transformer says what to start "
                "from; leave run.start_from empty"
            )
        self.network.grid(*self.latent_shape[:3])
        check_release(self.network, self.vae, self.text)
        self._check_given()
        if max(self.data.ids) >= self.network.views:
            raise ValueError(
                f"data.views={self.data.views}: the network knows {self.network.views} cameras only"
            )

    def _check_given(self):
        given, frames = self.train.given_frames, self.latent_shape[0]
        if any(given[frames:]):
            raise ValueError(
                f"train.given_frames={given} gives {max(np.flatnonzero(given))} latent frames, but "
                f"data.frames={self.data.frames} are {frames} in all, so that nothing would be "
                f"learnt: give at most {frames} probabilities"
            )

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(t, h, w, c) of a view; raises ValueError if the videos do not fit the VAE."""
        frames = self.vae.latent_frames(self.data.frames)
        size = self.vae.latent_size(self.data.height, self.data.width)
        return (frames, *size, self.vae.latent_channels)

    @property
    def prepared(self) -> Path:
        """Where latents and words are kept."""
        folder = self.data.prepared
        return Path(folder).expanduser() if folder else self.run.folder / "prepared"

    @property
    def fingerprint(self) -> dict:
        """What a resumed run must share with the one it continues."""
        free = {"train": (*LOOP_FIELDS, "remat"), "data": ("root", "prepared")}
        found = {
            name: {k: v for k, v in dataclasses.asdict(getattr(self, name)).items() if k not in out}
            for name, out in free.items()
        }
        network = dataclasses.asdict(dataclasses.replace(self.network, remat=False))
        found["network"] = {**network, "dtype": self.models.dtype}
        found["models"] = {
            "start": networks.transformer_identity(self.models),
            "vae": vae_identity(self),
            "text": text_identity(self),
        }
        return found


def training_setup(config: ConfigDict) -> Setup:
    """The settings of a run; raises ValueError, in one line, for what does not fit."""
    if unknown := sorted(set(config) - {"mode", *SECTIONS, *SHAPES}):
        known = ", ".join(("mode", *SECTIONS, *SHAPES))
        raise ValueError(f"config.{unknown[0]} is not a section; known: {known}")
    found = {
        name: build(cls, config.get(name, {}), f"config.{name}")
        for name, cls in {**SECTIONS, **SHAPES}.items()
    }
    models, train = found["models"], found["train"]
    encoder = found.pop("encoder")
    if not models.random:
        found["network"] = _describe(models, train, found["network"])
        found["vae"] = networks.describe_vae(models)
    half = models.dtype == "bfloat16"
    found["network"] = dataclasses.replace(found["network"], dtype=models.dtype, remat=train.remat)
    found["vae"] = dataclasses.replace(found["vae"], dtype=models.dtype, round_constants=half)
    found["text"] = prompt_settings(found["text"], encoder)
    return Setup(**found)


def _describe(models: ModelConfig, train: TrainConfig, shape: DitConfig) -> DitConfig:
    """The network's shape from its file; that of a base without control as config.network says."""
    if train.control == "from_base" and is_base(models):
        return shape
    return networks.describe_transformer(models)


def is_base(models: ModelConfig) -> bool:
    """Whether the file to start from is upstream's without a control branch."""
    path = Path(models.transformer).expanduser()
    if not path.exists() or networks.is_ours(path):
        return False
    return not any(name.startswith("control") for name in keys.network_tensors(files.read(path)))


def vae_identity(setup: Setup) -> str:
    """Tells VAEs apart, and how they compute."""
    shape = json.dumps(dataclasses.asdict(setup.vae))
    if setup.models.random:
        return f"random {setup.models.random_seed} {shape}"
    return f"{checkpoint.identity(setup.models.vae)} {shape}"


def text_identity(setup: Setup) -> tuple[str, tuple[str, ...]]:
    """Tells text encoders apart, and files of embeddings."""
    encoder = setup.text.identity() if setup.text.network else ""
    return encoder, tuple(map(checkpoint.identity, setup.text.config.precomputed))
