"""Checked settings of FDM from a config file."""

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from jaxvid.core.config import build
from jaxvid.core.mesh import MeshConfig
from jaxvid.data.sources import DATASETS, DataConfig, open_source
from jaxvid.fdm.model import describe_model
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.sample_config import SampleConfig, Settings
from jaxvid.fdm.train import TrainConfig
from jaxvid.fdm.training_settings import RunConfig, Setup
from jaxvid.fdm.unet import UNetConfig


def training_setup(config: ConfigDict) -> Setup:
    """The settings of a training run.

    Raises:
      ValueError: see config.build.
    """
    sections = {
        "network": UNetConfig,
        "diffusion": DiffusionConfig,
        "data": DataConfig,
        "train": TrainConfig,
        "run": RunConfig,
        "mesh": MeshConfig,
    }
    check_sections(config, ("mode", *sections))
    return Setup(**{name: build_section(cls, config, name) for name, cls in sections.items()})


def sampling_settings(config: ConfigDict) -> Settings:
    """The settings of sampling, read from the config and from the checkpoint's own info.

    Raises:
      ValueError: see config.build; no FDM checkpoint; data that does not fit it; a scheme that
        cannot complete the videos.
    """
    check_sections(
        config, ("mode", "checkpoint", "network_dtype", "data", "sampling", "run", "mesh")
    )
    if not config.get("checkpoint"):
        raise ValueError("config.checkpoint is empty; give a checkpoint folder or a .pt file")
    sampling = build_section(SampleConfig, config, "sampling")
    mesh = build_section(MeshConfig, config, "mesh")
    model = describe_model(config.checkpoint)
    data = sampling_data(config.get("data", {}), model, sampling.split)
    max_frames = sampling.max_frames or int(model.arguments.get("max_frames", 0))
    if not max_frames:
        raise ValueError("the checkpoint does not name max_frames; set sampling.max_frames")
    network = model.network
    if config.get("network_dtype"):
        fields = dataclasses.asdict(network) | {"dtype": config.network_dtype}
        network = build(UNetConfig, fields, "config.network_dtype as network")
    return Settings(
        checkpoint=str(config.checkpoint),
        network=network,
        diffusion=dataclasses.replace(model.diffusion, respacing=sampling.respacing),
        arguments=model.arguments,
        step=model.step,
        data=data,
        sampling=sampling,
        mesh=mesh,
        T=data.frames,
        max_frames=max_frames,
        step_size=sampling.step_size or max(1, max_frames // 2),
        output=config.get("run", {}).get("output", ""),
    )


def sampling_data(section: Mapping, model, split: str) -> DataConfig:
    """The data section with what it leaves open taken from the checkpoint and the dataset."""
    fields = dict(section)
    fields["name"] = fields.get("name") or model.arguments.get("dataset", "")
    if fields["name"] not in DATASETS:
        raise ValueError(
            f"dataset {fields['name']!r} is unknown; set config.data.name to one of "
            f"{', '.join(DATASETS)}"
        )
    side = model.network.image_size
    if fields["name"] in ("videos", "maze_walk") and fields.get("size") is None:
        fields["size"] = side
    data = build(DataConfig, fields, "config.data")
    source = open_source(data, split)
    if source.size != side:
        raise ValueError(
            f"config.data: frames are {source.size}x{source.size}, the checkpoint's network is "
            f"made for {side}x{side}; use another checkpoint, or set data.size={side}"
        )
    return dataclasses.replace(data, frames=source.frames)


def check_sections(config: ConfigDict, known: tuple[str, ...]) -> None:
    """ValueError for a section that FDM does not read, or another mode."""
    if config.get("mode") != "fdm":
        raise ValueError(f"config.mode={config.get('mode')!r} is not 'fdm'")
    if unknown := sorted(set(config) - set(known)):
        raise ValueError(f"config.{unknown[0]} is not a section; known: {', '.join(known)}")


def build_section(cls, config: ConfigDict, name: str):
    """One section as its dataclass."""
    return build(cls, config.get(name, {}), f"config.{name}")
