"""The networks of a run: what their files hold, told without reading the numbers, and loading."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core import checkpoint, torch_file
from jaxvid.core.config import build
from jaxvid.core.convert import to_theirs
from jaxvid.core.distributed import place
from jaxvid.core.mesh import shardings
from jaxvid.core.random_tree import draw
from jaxvid.longlive import random_models
from jaxvid.longlive.sample_config import ModelConfig, Settings
from jaxvid.wan import dit, dit_files, dit_keys, vae_keys
from jaxvid.wan.dit import WanConfig
from jaxvid.wan.lora import LoraConfig, rank_of
from jaxvid.wan.prompts import TextEncoder, embed_prompts, load_encoder
from jaxvid.wan.tokenizer import Tokenizer
from jaxvid.wan.umt5 import Umt5Config
from jaxvid.wan.vae import VaeConfig

SHOWN = 5  # names that an error lists


class Described(NamedTuple):
    """The shapes of the networks, and upstream's word for the transformer's weights."""

    network: WanConfig
    vae: VaeConfig
    text: Umt5Config
    model_type: str


def describe(models: ModelConfig) -> Described:
    """What the files hold; raises ValueError, in one line, for a file that does not fit."""
    network, merged = describe_transformer(models)
    if models.lora and merged:
        raise ValueError(
            f"models.transformer={models.transformer} has a LoRA merged in already: "
            "set models.lora=''"
        )
    if models.lora:
        read_lora(models, network)
    kind = "lora" if models.lora or merged else "ema" if models.use_ema else "regular"
    return Described(network, describe_vae(models), describe_encoder(models), kind)


def describe_transformer(
    models: ModelConfig, field: str = "transformer", names: Sequence[str] = ()
) -> tuple[WanConfig, bool]:
    """Shape of the transformer, and whether it is a checkpoint with a LoRA merged in.

    field: of `models`, where the file is named; names: of its entries, instead of the usual ones.
    """
    path = _require(getattr(models, field), field)
    if path.is_file():
        return _describe_file(path, names or _entries(models), field), False
    info = checkpoint.read_info(path)
    if info.get("kind") != "wan_dit":
        found = info.get("model", info.get("kind", "something else"))
        raise ValueError(f"models.{field}={path} is a checkpoint of {found!r}, not 'wan_dit'")
    if models.use_ema:
        raise ValueError(
            f"models.use_ema: {path} holds one set of weights; convert the EMA with "
            "--model=wan_dit_ema"
        )
    return build(WanConfig, info["network"], f"{path}: network"), bool(info.get("merged_lora"))


def _entries(models: ModelConfig) -> Sequence[str]:
    return dit_files.EMA if models.use_ema else dit_files.GENERATOR


def _describe_file(path: Path, names: Sequence[str], field: str) -> WanConfig:
    """Shape of the network in an upstream file, each of whose names and shapes is checked."""
    tensors = dit_keys.clean_names(dit_files.entry(torch_file.load(path), names, path)[1])
    try:
        layout = dit_keys.LAYOUTS[dit_keys.layout_of(tensors)]
        regexes = [rule.theirs_regex for rule in layout]
        known = {n: a for n, a in tensors.items() if any(r.fullmatch(n) for r in regexes)}
        config = dit_keys.config_of(known)
    except ValueError as error:
        raise ValueError(f"models.{field}={path}: {error}") from error
    nothing = jax.tree.map(
        lambda a: np.broadcast_to(np.zeros((), a.dtype), a.shape), dit.abstract_parameters(config)
    )
    expected = {name: a.shape for name, a in to_theirs(nothing, layout).items()}
    _compare(f"models.{field}={path}", expected, {name: a.shape for name, a in tensors.items()})
    return config


def _compare(where: str, expected: Mapping, found: Mapping) -> None:
    """ValueError that lists missing and extra names, or names the first of another shape."""
    missing, extra = sorted(expected.keys() - found), sorted(found.keys() - expected)
    if missing or extra:
        raise ValueError(
            f"{where} is another network: it lacks {_names(missing)} and has "
            f"{_names(extra)} too many"
        )
    for name, shape in expected.items():
        if tuple(found[name]) != tuple(shape):
            raise ValueError(f"{where}: {name} is {found[name]}, not {shape}")


def _names(names: Sequence[str]) -> str:
    more = ", ..." * (len(names) > SHOWN)
    return f"{len(names)} tensors" + (f" ({', '.join(names[:SHOWN])}{more})" if names else "")


def read_lora(
    models: ModelConfig,
    network: WanConfig,
    field: str = "lora",
    names: Sequence[str] = dit_files.LORAS,
) -> tuple[dict, LoraConfig]:
    """The adapters, still on the disk, and their strength; `field` and `names` as above."""
    path = _require(getattr(models, field), field)
    if path.is_file():
        adapters, alpha = dit_files.read_adapters(path, names, network), 0.0
    else:
        info = checkpoint.read_info(path)
        if info.get("kind") != "wan_lora":
            found = info.get("model", info.get("kind", "something else"))
            raise ValueError(f"models.{field}={path} is a checkpoint of {found!r}, not 'wan_lora'")
        base = dataclasses.replace(network, remat=False)
        if build(WanConfig, info["network"], f"{path}: network") != base:
            raise ValueError(f"models.{field}={path} adapts another network than the one given")
        adapters, alpha = checkpoint.restore(path), info["lora"]["alpha"]
    rank = rank_of(adapters)
    if models.lora_rank and rank != models.lora_rank:
        raise ValueError(
            f"models.{field}={path} has rank {rank}, models.lora_rank={models.lora_rank}: "
            "use the rank it has"
        )
    return adapters, LoraConfig(rank, models.lora_alpha or alpha or float(rank))


def describe_vae(models: ModelConfig) -> VaeConfig:
    """Shape of the VAE."""
    path = _require(models.vae, "vae")
    try:
        return vae_keys.describe(path, models.dtype)
    except ValueError as error:
        raise ValueError(f"models.vae={error}") from error


def describe_encoder(models: ModelConfig) -> Umt5Config:
    """Shape of the text encoder."""
    path = _require(models.text_encoder, "text_encoder")
    try:
        return load_encoder(path, models.dtype).config
    except ValueError as error:
        raise ValueError(f"models.text_encoder={path}: {error}") from error


def _require(path: str, field: str) -> Path:
    found = Path(path).expanduser()
    if not path or not found.exists():
        raise ValueError(
            f"models.{field}={path}: there is no such file; see README, section LongLive, for the "
            "downloads"
        )
    return found


def tokenizer(settings: Settings) -> Tokenizer:
    """Cuts prompts to what the transformer reads."""
    return Tokenizer(settings.models.tokenizer, settings.network.text_length)


def encoder(settings: Settings) -> TextEncoder:
    """The text encoder, unread."""
    models = settings.models
    if models.random:
        return random_models.RandomEncoder(Path(), settings.text, models.random_seed)
    return load_encoder(models.text_encoder, models.dtype)


def embed(settings: Settings, prompts: Iterable[str]) -> dict[str, np.ndarray]:
    """The (length, c) embeddings of each prompt; the encoder is gone when this returns."""
    models = settings.models
    found = embed_prompts(
        list(prompts), tokenizer(settings), encoder(settings), models.embeddings or None
    )
    return {prompt: rows.astype(jnp.dtype(models.dtype)) for prompt, rows in found.items()}


def load_transformer(settings: Settings, mesh) -> dict:
    """Parameters over the mesh, with the LoRA merged in."""
    models, network = settings.models, settings.network
    places = shardings(dit.abstract_parameters(network), dit.RULES, mesh)
    return read_transformer(models, network, models.dtype, places)


def read_transformer(
    models: ModelConfig,
    network: WanConfig,
    dtype: str,
    places,
    field: str = "transformer",
    names: Sequence[str] = (),
) -> dict:
    """Parameters with a sharding each, and the LoRA merged in; see `describe_transformer`."""
    abstract = dit.abstract_parameters(network)
    if models.random:
        return draw(abstract, models.random_seed, dtype, places)
    path = Path(getattr(models, field)).expanduser()
    if path.is_dir() and not models.lora:
        like = jax.tree.map(
            lambda a, place: jax.ShapeDtypeStruct(a.shape, dtype, sharding=place), abstract, places
        )
        return checkpoint.restore(path, like)
    if path.is_dir():
        params = checkpoint.restore(path)
    else:
        params = dit_files.read_transformer(path, names or _entries(models))[0]
    if models.lora:
        params = dit_files.merged(params, *read_lora(models, network))
    cast = jax.tree.map(lambda a: np.asarray(a, jnp.dtype(dtype)), params)
    return place(cast, places)


def identity(settings: Settings) -> str:
    """Tells weights apart without reading them: by fingerprint, or by size and time of a file."""
    models = settings.models
    if models.random:
        shapes = [settings.network, settings.vae, settings.text]
        return json.dumps(["random", models.random_seed, *map(dataclasses.asdict, shapes)])
    named = ("transformer", "lora", "vae", "text_encoder", "tokenizer")
    return json.dumps({name: checkpoint.identity(getattr(models, name)) for name in named})


def text_identity(settings: Settings) -> str:
    """The same for the text encoder alone, with its tokenizer."""
    models = settings.models
    if models.random:
        encoder = json.dumps(["random", models.random_seed, dataclasses.asdict(settings.text)])
    else:
        encoder = checkpoint.identity(models.text_encoder)
    return f"{encoder} {checkpoint.identity(_require(models.tokenizer, 'tokenizer'))}"


def vae_identity(settings: Settings) -> str:
    """The same for the VAE alone."""
    models = settings.models
    if models.random:
        return json.dumps(["random", models.random_seed, dataclasses.asdict(settings.vae)])
    return checkpoint.identity(models.vae)
