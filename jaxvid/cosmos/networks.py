"""The networks of a run: what their files hold, told without reading the numbers, and loading."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core import checkpoint
from jaxvid.core.distributed import place
from jaxvid.core.files import read_json
from jaxvid.core.mesh import shardings
from jaxvid.core.random_tree import draw
from jaxvid.cosmos import dit, files, keys, model
from jaxvid.cosmos.dit import DitConfig
from jaxvid.cosmos.sample_config import ModelConfig, Settings
from jaxvid.wan import vae_keys
from jaxvid.wan.vae import VaeConfig


def describe_transformer(models: ModelConfig) -> DitConfig:
    """Shape of the transformer; ValueError, in one line, for a file of something else."""
    path = _require(models.transformer, "transformer")
    if is_ours(path):
        info = checkpoint.read_info(path)
        if info.get("kind") not in files.KINDS:
            found = info.get("model", info.get("kind", "something else"))
            raise ValueError(
                f"models.transformer={path} is a checkpoint of {found!r}, not one of "
                f"{', '.join(files.KINDS)}"
            )
        return _typed(files.network_of(info, f"{path}: network"), models)
    try:
        config = keys.config_of(keys.network_tensors(files.read(path)), settings_of(models))
    except ValueError as error:
        text = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"models.transformer={path}: {text}") from error
    return _typed(config, models)


def describe_vae(models: ModelConfig) -> VaeConfig:
    """Shape of the VAE."""
    path = _require(models.vae, "vae")
    try:
        return vae_keys.describe(path, models.dtype)
    except ValueError as error:
        raise ValueError(f"models.vae={error}") from error


def load_transformer(settings: Settings, mesh) -> dict:
    """Parameters over the mesh."""
    models, network = settings.models, settings.network
    abstract = model.abstract_parameters(network)
    places = shardings(abstract, dit.RULES, mesh)
    if models.random:
        return draw(abstract, models.random_seed, models.dtype, places)
    path = Path(models.transformer).expanduser()
    if is_ours(path):
        like = jax.tree.map(
            lambda a, where: jax.ShapeDtypeStruct(a.shape, models.dtype, sharding=where),
            abstract,
            places,
        )
        return checkpoint.restore(path, like)
    params, _ = files.read_network(path, settings_of(models))
    cast = jax.tree.map(lambda a: np.asarray(a, jnp.dtype(models.dtype)), params)
    return place(cast, places)


def text_projection(models: ModelConfig, network: DitConfig) -> dict:
    """The parameters of `model.text_context` alone, in the network's type.

    Raises:
      ValueError: a file that holds another one.
    """
    abstract = model.abstract_parameters(network)["text"]
    path = Path(models.transformer).expanduser()
    if models.random:
        found = draw({"text": abstract}, models.random_seed, models.dtype)["text"]
    elif is_ours(path):
        found = checkpoint.restore(path, part="text")
    else:
        found = files.read_part(path, "text", abstract)
    return jax.tree.map(lambda a: np.asarray(a, jnp.dtype(models.dtype)), found)


def transformer_identity(models: ModelConfig) -> str:
    """Tells the parameters of transformers of one shape apart, without reading them."""
    if models.random:
        return f"random {models.random_seed}"
    return checkpoint.identity(models.transformer)


def identity(settings: Settings) -> dict:
    """What names the parameters and embeddings, without reading them all."""
    models, text = settings.models, settings.text.config
    if models.random:
        networks = f"random {models.random_seed} {settings.network} {settings.vae}"
    else:
        networks = [
            checkpoint.identity(p) for p in (models.transformer, models.settings, models.vae)
        ]
    sources = [checkpoint.identity(path) for path in text.precomputed]
    encoder = settings.text.identity() if settings.text.network else ""
    return {"networks": networks, "encoder": encoder, "precomputed": sources}


def is_ours(path: Path) -> bool:
    """Whether it is a checkpoint of ours, and not upstream's file or folder of `.distcp` files."""
    return path.is_dir() and not any(path.rglob("*.distcp"))


def settings_of(models: ModelConfig) -> dict | None:
    """Upstream's arguments of the network, if a file gives them."""
    return read_json(Path(models.settings).expanduser()) if models.settings else None


def _typed(config: DitConfig, models: ModelConfig) -> DitConfig:
    return dataclasses.replace(config, dtype=models.dtype)


def _require(path: str, field: str) -> Path:
    found = Path(path).expanduser()
    if not path or not found.exists():
        raise ValueError(
            f"models.{field}={path}: there is no such file; see README, Cosmos multiview, for the "
            "downloads"
        )
    return found
