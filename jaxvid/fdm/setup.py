"""Checked settings of FDM from a config file."""

from ml_collections import ConfigDict

from jaxvid.core.config import build
from jaxvid.core.mesh import MeshConfig
from jaxvid.data.sources import DataConfig
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.train import TrainConfig
from jaxvid.fdm.training_run import RunConfig, Setup
from jaxvid.fdm.unet import UNetConfig

SECTIONS = {
    "network": UNetConfig,
    "diffusion": DiffusionConfig,
    "data": DataConfig,
    "train": TrainConfig,
    "run": RunConfig,
    "mesh": MeshConfig,
}


def training_setup(config: ConfigDict) -> Setup:
    """The settings of a training run.

    Raises:
      ValueError: see config.build.
    """
    unknown = set(config) - {"mode", *SECTIONS}
    if unknown:
        raise ValueError(f"config.{sorted(unknown)[0]} is not a section; known: {list(SECTIONS)}")
    if config.get("mode") != "fdm":
        raise ValueError(f"config.mode={config.get('mode')!r} cannot be trained; use mode='fdm'")
    return Setup(
        **{name: build(cls, config.get(name, {}), f"config.{name}") for name, cls in SECTIONS.items()}
    )
