"""Checked settings of LongLive from a config file."""

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from jaxvid.core.config import build, refuse_files
from jaxvid.core.mesh import MeshConfig
from jaxvid.longlive.models import Described, describe
from jaxvid.longlive.rollout import RolloutConfig
from jaxvid.longlive.sample_config import ModelConfig, SampleConfig, Settings
from jaxvid.wan.dit import WanConfig
from jaxvid.wan.umt5 import Umt5Config
from jaxvid.wan.vae import VaeConfig

NETWORKS = {"network": WanConfig, "vae": VaeConfig, "text": Umt5Config}  # of models.random
SECTIONS = {
    "sampling": SampleConfig,
    "rollout": RolloutConfig,
    "models": ModelConfig,
    "mesh": MeshConfig,
}


def sampling_settings(config: ConfigDict) -> Settings:
    """The settings of sampling, with the shapes of the networks from their files.

    Raises:
      ValueError: see config.build; files that are not there or do not fit; sizes or lengths that
        the networks cannot make.
    """
    if unknown := sorted(set(config) - {"mode", "run", *SECTIONS, *NETWORKS}):
        known = ", ".join(("mode", *SECTIONS, *NETWORKS, "run"))
        raise ValueError(f"config.{unknown[0]} is not a section; known: {known}")
    sections = {name: build_section(cls, config, name) for name, cls in SECTIONS.items()}
    refuse_files(sections["models"], "transformer", "vae", "text_encoder")
    found = networks(config, sections["models"])
    return Settings(**sections, **found._asdict())


def networks(config: ConfigDict, models: ModelConfig) -> Described:
    """Shapes of the networks: of their files, or with `models.random` of the config."""
    given = {name: build_section(cls, config, name) for name, cls in NETWORKS.items()}
    if models.random:
        sized = {n: dataclasses.replace(given[n], dtype=models.dtype) for n in ("vae", "text")}
        return Described(given["network"], **sized, model_type="regular")
    refuse_sizes(given)
    return describe(models)


def refuse_sizes(given: Mapping) -> None:
    """ValueError if sections of sizes, by name, state any: only random networks have them."""
    for name, sizes in given.items():
        if sizes != type(sizes)():
            raise ValueError(
                f"config.{name} gives the sizes of random networks: the files say theirs "
                "themselves; leave it as it is, or set models.random=True and models.lora=''"
            )


def build_section(cls, config: ConfigDict, name: str):
    """One section as its dataclass."""
    return build(cls, config.get(name, {}), f"config.{name}")
