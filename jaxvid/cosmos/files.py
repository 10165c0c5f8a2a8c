"""Files of the Cosmos network: release, training checkpoints, both directions.

A release is flat, bfloat16, with names under `net.`; a training checkpoint is a flat file with
`net.` and `net_ema.`, or a folder `.../model` of torch.distributed.checkpoint.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxvid.core import distcp_file, torch_file
from jaxvid.core.config import build
from jaxvid.core.convert import to_ours, to_theirs
from jaxvid.core.files import read_json
from jaxvid.cosmos.dit import DitConfig
from jaxvid.cosmos.keys import (
    REGULAR,
    RULES,
    config_of,
    network_tensors,
    parameters,
    settings_of,
)

KINDS = {"cosmos_multiview": False, "cosmos_multiview_crossview": True}  # with attention over views
LEVELS = ("model", "state_dict")  # dicts around the tensors


def read(path: Path) -> Mapping:
    """The tensors of a file or folder, without wrapping levels, read when they are asked for."""
    content = distcp_file.load(path) if path.is_dir() else torch_file.load(path)
    while isinstance(content, Mapping):
        level = next((name for name in LEVELS if isinstance(content.get(name), Mapping)), None)
        if level is None:
            return content
        content = content[level]
    raise ValueError(f"{path} is no checkpoint: it holds a {type(content).__name__}")


def read_network(path: Path, settings: Mapping | None = None) -> tuple[dict, DitConfig]:
    """Parameters in the file's type, and the network's shape.

    Raises:
      ValueError: in one line; another kind of file, names or shapes that do not fit.
    """
    tensors = read(path)
    try:
        tensors = network_tensors(tensors)
        config = config_of(tensors, settings)
        return parameters(tensors, config), config
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_part(path: Path, part: str, expected) -> dict:
    """Parameters of one part, e.g. "text", in the file's type; nothing else is read.

    Raises:
      ValueError: in one line; the file lacks it, or shapes are not as those of `expected`.
    """
    rules = [rule for rule in RULES if rule.ours.startswith(f"{part}/")]
    try:
        tensors = network_tensors(read(path))
        names = [n for n in tensors if any(rule.theirs_regex.fullmatch(n) for rule in rules)]
        return to_ours({name: tensors[name] for name in names}, rules, {part: expected})[part]
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def convert(sources: Sequence[Path], kind: str = "cosmos_multiview") -> tuple[dict, dict]:
    """Parameters and checkpoint info for scripts/convert.py.

    Args:
      sources: a weights file or a folder of `.distcp` files; optionally a `.json` with upstream's
        arguments of the network, if they are not those of the release.
      kind: which of KINDS is expected.
    """
    settings = [path for path in sources if path.suffix == ".json"]
    weights = [path for path in sources if path.suffix != ".json"]
    if len(weights) != 1 or len(settings) > 1:
        raise ValueError(
            "--source: give one file or folder of weights and at most one .json of settings, "
            f"got {len(weights)} and {len(settings)}"
        )
    given = read_json(settings[0]) if settings else {}
    params, config = read_network(weights[0], given)
    if config.cross_view != KINDS[kind]:
        other = next(name for name, cross_view in KINDS.items() if cross_view == config.cross_view)
        raise ValueError(f"{weights[0]} is not for --model={kind}: use --model={other}")
    return params, {"kind": kind, "network": dataclasses.asdict(config)}


def network_of(info: Mapping, place: str = "network") -> DitConfig:
    """The network's shape from the note of a converted checkpoint."""
    return build(DitConfig, info["network"], place)


def revert(params: Mapping, info: Mapping) -> dict:
    """The content of a release file: flat, bfloat16, names under `net.`.

    Counters and tables are not in it; upstream computes them anew.
    """
    theirs = to_theirs(params, RULES)
    config_of(theirs, settings_of(network_of(info)))
    return {
        REGULAR + name: np.ascontiguousarray(array.astype(ml_dtypes.bfloat16))
        for name, array in theirs.items()
    }


def needed_settings(content: Mapping, info: Mapping) -> dict:
    """Upstream's settings that a file of `revert` has to be read with, {} if with none."""
    network, tensors = network_of(info), network_tensors(content)
    plain = dataclasses.replace(network, dtype=DitConfig.dtype, remat=DitConfig.remat)
    try:
        return {} if config_of(tensors) == plain else settings_of(network)
    except ValueError:  # where hints lie is not told by their number
        return settings_of(network)
