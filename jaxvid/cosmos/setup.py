"""Checked settings of the multiview mode from a config file."""

import dataclasses

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvid.core.config import build, refuse_files
from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.cosmos import networks
from jaxvid.cosmos.dit import DitConfig
from jaxvid.cosmos.multirun import MultirunConfig
from jaxvid.cosmos.prompts import PromptConfig, prompt_settings
from jaxvid.cosmos.safety import Safety, SafetyConfig
from jaxvid.cosmos.sample import SamplerConfig
from jaxvid.cosmos.sample_config import ModelConfig, SampleConfig, Settings
from jaxvid.cosmos.spec import Overrides
from jaxvid.cosmos.text import TextConfig
from jaxvid.wan.vae import VaeConfig

NETWORKS = {"network": DitConfig, "vae": VaeConfig, "encoder": TextConfig}  # random ones
SECTIONS = {
    "sampling": SampleConfig,
    "overrides": Overrides,
    "sampler": SamplerConfig,
    "safety": SafetyConfig,
    "text": PromptConfig,
    "models": ModelConfig,
    "mesh": MeshConfig,
    "multirun": MultirunConfig,
}


def sampling_settings(config: ConfigDict) -> Settings:
    """The settings of sampling, with the shapes of the networks from their files.

    Raises:
      ValueError: see config.build; files that are not there or do not fit; a safety check that
        cannot be loaded.
    """
    if unknown := sorted(set(config) - {"mode", "run", *SECTIONS, *NETWORKS}):
        known = ", ".join(("mode", *SECTIONS, *NETWORKS, "run"))
        raise ValueError(f"config.{unknown[0]} is not a section; known: {known}")
    found = {name: build_section(cls, config, name) for name, cls in SECTIONS.items()}
    refuse_files(found["models"], "transformer", "settings", "vae")
    found["safety"] = Safety(found["safety"])
    shapes = {name: build_section(cls, config, name) for name, cls in NETWORKS.items()}
    _check_shapes(shapes, found["models"].random, found["text"].random)
    found["network"], found["vae"] = _networks(found["models"], shapes)
    found["text"] = prompt_settings(found["text"], shapes["encoder"])
    return Settings(**found)


def _networks(models: ModelConfig, shapes: dict) -> tuple[DitConfig, VaeConfig]:
    if models.random:
        pair = (shapes["network"], shapes["vae"])
        network, vae = (dataclasses.replace(c, dtype=models.dtype) for c in pair)
    else:
        network, vae = networks.describe_transformer(models), networks.describe_vae(models)
    return network, dataclasses.replace(vae, round_constants=models.dtype == "bfloat16")


def _check_shapes(shapes: dict, random: bool, random_text: bool) -> None:
    for name, cls in NETWORKS.items():
        drawn = random_text if name == "encoder" else random
        if not drawn and shapes[name] != cls():
            switch = "text.random" if name == "encoder" else "models.random"
            raise ValueError(
                f"config.{name} gives the sizes of a random network: the files say theirs "
                f"themselves; use a config or variant that leaves it, or set {switch}=True"
            )


def build_section(cls, config: ConfigDict, name: str):
    """One section as its dataclass."""
    return build(cls, config.get(name, {}), f"config.{name}")


def sampling_mesh(settings: Settings, devices=None) -> Mesh:
    """The mesh of all devices of the JAX run, unless others are given.

    Raises:
      ValueError: it does not fit the devices, or has nothing to do for some of them.
    """
    mesh = make_mesh(settings.mesh, jax.devices() if devices is None else devices)
    data, passes = mesh.shape["data"], settings.sampling.guidance_passes
    if data > 2:
        raise ValueError(
            f"mesh.data={data}: only the two passes of guidance can be shared out over it, so it "
            "is 1 or 2; use mesh.seq=-1 for more devices"
        )
    if data == 2 and passes == "separate":
        raise ValueError(
            "mesh.data=2 shares out the two passes of guidance, guidance_passes=separate makes "
            "them one after the other: set one of them otherwise"
        )
    return mesh


def passes_together(settings: Settings, mesh: Mesh) -> bool:
    """Whether both passes of guidance are one call, as a batch of two."""
    passes = settings.sampling.guidance_passes
    return mesh.shape["data"] == 2 if passes == "auto" else passes == "together"
