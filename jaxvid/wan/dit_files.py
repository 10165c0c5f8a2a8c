"""Files of the Wan transformer and its adapters: containers, settings, both directions.

A file is flat, or a training checkpoint of Self-Forcing or LongLive that holds `generator`,
`generator_ema`, `critic` or `model`; adapters are flat or `generator_lora` and `critic_lora`.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from jaxvid.core import torch_file
from jaxvid.core.config import build
from jaxvid.core.convert import to_theirs
from jaxvid.core.files import read_json
from jaxvid.wan.dit import WanConfig
from jaxvid.wan.dit_keys import (
    LAYOUTS,
    LORA,
    PEFT_PREFIX,
    WRAPPERS,
    adapters,
    clean_names,
    config_of,
    layout_of,
    parameters,
)
from jaxvid.wan.lora import LoraConfig, merge, rank_of

PREFIX = re.compile(rf"((model|{'|'.join(WRAPPERS)})\.)*")
GENERATOR = ("generator", "model")
EMA = ("generator_ema",)
CRITIC = ("critic",)
LORAS = ("generator_lora",)
CRITIC_LORAS = ("critic_lora",)


def entry(content, names: Sequence[str], path) -> tuple[str, Mapping]:
    """The tensors of a file: those under the first of `names` that is there, or the file itself.

    Returns the entry's name ("" if the file is flat) and its tensors. A flat file has no averages.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} is no checkpoint: it holds a {type(content).__name__}")
    for name in names:
        if isinstance(content.get(name), Mapping):
            return name, content[name]
    if content and all(isinstance(value, np.ndarray) for value in content.values()):
        if names == EMA:
            raise ValueError(
                f"{path} holds one set of weights, no generator_ema: "
                "use models.use_ema=False, or convert it with --model=wan_dit"
            )
        return "", content
    raise ValueError(f"{path} holds {', '.join(map(str, content))}, but not {' or '.join(names)}")


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
    """What a set of parameters came from, to be written back the same way."""

    layout: str
    entry: str = ""  # name in the container; "" if the file was flat
    prefix: str = ""  # before each name


def read_transformer(path: Path, names: Sequence[str], settings: Mapping | None = None):
    """Parameters, network and origin of a weights file of any layout and container."""
    name, tensors = entry(torch_file.load(path), names, path)
    prefix = PREFIX.match(next(iter(tensors), ""))[0]
    tensors = clean_names(tensors)
    try:
        config = config_of(tensors, settings)
        params = parameters(tensors, config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return params, config, Origin(layout_of(tensors), name, prefix)


def read_adapters(path: Path, names: Sequence[str], config: WanConfig) -> dict:
    """Adapters of a LoRA file for a network of this shape."""
    try:
        return adapters(entry(torch_file.load(path), names, path)[1], config)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def write_back(params: Mapping, origin: Origin) -> dict:
    """Upstream's file content from our parameters."""
    theirs = to_theirs(params, LAYOUTS[origin.layout])
    theirs = {origin.prefix + name: np.ascontiguousarray(a) for name, a in theirs.items()}
    return {origin.entry: theirs} if origin.entry else theirs


def write_adapters(lora: Mapping, name: str = "generator_lora") -> dict:
    """Upstream's LoRA file content from our adapters."""
    theirs = to_theirs(lora, LORA)
    theirs = {PEFT_PREFIX + key: np.ascontiguousarray(a) for key, a in theirs.items()}
    return {name: theirs} if name else theirs


def merged(params: Mapping, lora: Mapping, config: LoraConfig) -> dict:
    """`merge` for stored arrays: numpy in, numpy out."""
    rank = rank_of(lora)
    if rank != config.rank:
        raise ValueError(f"the LoRA has rank {rank}, not {config.rank}: use the rank it has")
    return jax.tree.map(np.asarray, merge(params, lora, config.scale))


def is_adapters(path: Path) -> bool:
    """Whether a weights file holds LoRA matrices."""
    content = torch_file.load(path)
    if not isinstance(content, Mapping):
        return False
    return any(str(name).endswith(("_lora", ".lora_A.weight")) for name in content)


def lora_config(lora: Mapping, settings: Mapping) -> LoraConfig:
    """Rank and alpha of PEFT's `adapter_config.json`; without one, alpha is the file's rank."""
    rank = int(settings.get("r", rank_of(lora)))
    return LoraConfig(rank, float(settings.get("lora_alpha") or rank))


def convert(sources: Sequence[Path], names: Sequence[str] = GENERATOR) -> tuple[dict, dict]:
    """Parameters and checkpoint info for scripts/convert.py.

    Args:
      sources: a weights file; optionally LoRA weights to be merged in, upstream's `config.json`
        (needed if heads are not 128 wide) and PEFT's `adapter_config.json` (alpha).
      names: which entries of a training checkpoint to take, the first that is there.
    """
    settings, weights = _sort(sources)
    loras = [path for path in weights if is_adapters(path)]
    bases = [path for path in weights if path not in loras]
    if len(bases) != 1 or len(loras) > 1:
        raise ValueError(
            f"--source: give one file of the transformer and at most one LoRA, "
            f"got {len(bases)} and {len(loras)}"
        )
    params, config, origin = read_transformer(bases[0], names, settings)
    info = {"kind": "wan_dit", "network": dataclasses.asdict(config)}
    if loras:
        lora = read_adapters(loras[0], CRITIC_LORAS if names == CRITIC else LORAS, config)
        strength = lora_config(lora, settings)
        params = merged(params, lora, strength)
        info["merged_lora"] = dataclasses.asdict(strength)
    return params, info | {"origin": dataclasses.asdict(origin)}


def revert(params: Mapping, info: Mapping) -> dict:
    """Upstream's file content of a converted transformer."""
    return write_back(params, build(Origin, info["origin"], "origin"))


def convert_lora(sources: Sequence[Path], names: Sequence[str] = LORAS) -> tuple[dict, dict]:
    """Adapters and checkpoint info of a LoRA file, of the base it belongs to and of settings."""
    settings, weights = _sort(sources)
    loras = [path for path in weights if is_adapters(path)]
    bases = [path for path in weights if path not in loras]
    if len(loras) != 1 or len(bases) != 1:
        raise ValueError("--source: give the LoRA file and the file of the transformer it adapts")
    config = read_transformer(bases[0], GENERATOR, settings)[1]
    lora = read_adapters(loras[0], names, config)
    strength = lora_config(lora, settings)
    entry = next((name for name in names if name in torch_file.load(loras[0])), "")
    info = {"kind": "wan_lora", "network": dataclasses.asdict(config), "entry": entry}
    return lora, info | {"lora": dataclasses.asdict(strength)}


def revert_lora(lora: Mapping, info: Mapping) -> dict:
    """Upstream's file content of converted adapters."""
    return write_adapters(lora, info["entry"])


def _sort(sources: Sequence[Path]) -> tuple[dict, list[Path]]:
    """The settings of all JSON files together, and the weights files."""
    settings = {}
    weights = []
    for path in sources:
        if path.suffix == ".json" and not path.name.endswith(".index.json"):
            settings |= read_json(path)
        else:
            weights.append(path)
    return settings, weights
