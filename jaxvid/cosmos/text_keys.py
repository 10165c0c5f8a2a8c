"""PyTorch names of Qwen2.5-VL's language stack, as in Cosmos-Reason1-7B's safetensors."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxvid.core import torch_file
from jaxvid.core.convert import TRANSPOSE, Rule, to_ours, to_theirs
from jaxvid.core.files import read_json
from jaxvid.cosmos.text import TextConfig, abstract_parameters

LAYER = r"model.layers.{i:\d+}"
RULES = (
    Rule("model.embed_tokens.weight", "embedding", None),
    Rule(f"{LAYER}.input_layernorm.weight", "block_{i}/norm1/scale", None),
    Rule(f"{LAYER}.post_attention_layernorm.weight", "block_{i}/norm2/scale", None),
    Rule(f"{LAYER}.self_attn.{{x:q|k|v|o}}_proj.weight", "block_{i}/{x}/kernel", TRANSPOSE),
    Rule(f"{LAYER}.self_attn.{{x:q|k|v}}_proj.bias", "block_{i}/{x}/bias", None),
    Rule(f"{LAYER}.mlp.{{x:gate|up|down}}_proj.weight", "block_{i}/{x}/kernel", TRANSPOSE),
    Rule("model.norm.weight", "norm/scale", None),
)
PREFIX = re.compile(r"(model\.)?language_model\.(model\.)?")  # of the same in newer files
UNUSED = re.compile(r"(model\.)?visual\..*|lm_head\..*|.*\.rotary_emb\.inv_freq")
HEAD_WIDTH = 128  # of all models of the family
SETTINGS = {
    "heads": "num_attention_heads",
    "theta": "rope_theta",
    "epsilon": "rms_norm_eps",
}  # ours, and the names in `config.json` of what no tensor tells


def language_part(state: Mapping) -> dict:
    """The tensors of the language stack under the names that RULES knows."""
    kept = {name: array for name, array in state.items() if not UNUSED.fullmatch(name)}
    return {PREFIX.sub("model.", name, count=1): array for name, array in kept.items()}


def parameters(state: Mapping, **settings) -> tuple[TextConfig, dict]:
    """Config and our parameters of a state dict, without copying a tensor.

    settings: fields of the config that no tensor tells (heads, theta, epsilon) and dtype.
    Raises:
      ValueError: tensors of another model, names left over, or shapes that do not fit together.
    """
    state = language_part(state)
    if "model.embed_tokens.weight" not in state:
        some = ", ".join(list(state)[:3])
        raise ValueError(f"not Qwen2.5: no model.embed_tokens.weight (it holds {some}, ...)")
    params = to_ours(state, RULES)
    config = _config_of(params, settings)
    return config, to_ours(state, RULES, expected=abstract_parameters(config))


def _config_of(params: Mapping, settings: Mapping) -> TextConfig:
    try:
        first = params["block_0"]
        vocabulary, width = params["embedding"].shape
        hidden, keys = first["gate"]["kernel"].shape[1], first["k"]["kernel"].shape[1]
    except (KeyError, ValueError) as error:
        raise ValueError(f"not a whole Qwen2.5: its first layer lacks {error}") from error
    settings = dict(settings)
    heads = settings.pop("heads", max(width // HEAD_WIDTH, 1))
    if width % heads or keys % (width // heads):
        raise ValueError(
            f"heads={heads} do not divide its width {width} and its keys {keys}: add the "
            "config.json beside it to --source"
        )
    return TextConfig(
        vocabulary=vocabulary,
        width=width,
        hidden=hidden,
        heads=heads,
        key_heads=keys // (width // heads),
        layers=sum(name.startswith("block_") for name in params),
        **settings,
    )


def state_dict(params: Mapping) -> dict:
    """The file's flat state dict of our parameters, without what pictures need."""
    return to_theirs(params, RULES)


def read_settings(path: Path) -> dict:
    """Fields of the config from a `config.json` of transformers.

    Raises:
      ValueError: not JSON, or the settings of another kind of model.
    """
    found = read_json(path)
    if "qwen2" not in str(found.get("model_type")):
        raise ValueError(f"{path} is not the config.json of a Qwen2.5 model")
    found = found | (found.get("text_config") or {})
    rope = found.get("rope_parameters") or {}
    found = {"rope_theta": rope.get("rope_theta"), **found}
    return {ours: found[name] for ours, name in SETTINGS.items() if found.get(name) is not None}


def locate(source) -> tuple[list[Path], dict]:
    """Weight files and settings of a folder of the release, an index, or one file.

    A `config.json` in the same folder is read.
    Raises:
      ValueError: nothing there.
    """
    source = Path(source).expanduser()
    folder = source if source.is_dir() else source.parent
    files = [source]
    if source.is_dir():
        files = sorted(source.glob("*.safetensors.index.json"))[:1]
        files = files or sorted(source.glob("*.safetensors"))
    if not files or not files[0].is_file():
        raise ValueError(f"{source} holds no safetensors of Cosmos-Reason1 or Qwen2.5-VL")
    settings = folder / "config.json"
    return files, read_settings(settings) if settings.is_file() else {}


def convert(sources: Sequence) -> tuple[dict, dict]:
    """Parameters and the note of our checkpoint, of safetensors, an index, and a config.json."""
    sources = [Path(source) for source in sources]
    weights = [source for source in sources if source.name != "config.json"]
    if not weights:
        raise ValueError("--source: give the .safetensors.index.json, or the shards themselves")
    settings = locate(weights[0])[1]
    for source in sources:
        settings |= read_settings(source) if source not in weights else {}
    try:
        config, params = parameters(torch_file.load_all(weights), **settings)
    except ValueError as error:
        if str(error).startswith(str(weights[0])):
            raise
        raise ValueError(f"{weights[0]}: {error}") from error
    return params, {"config": dataclasses.asdict(config)}


def revert(params: Mapping, info: Mapping) -> dict:
    """The state dict, for `torch_file.save_pt`."""
    return state_dict(params)
