"""Configs of upstream's inference scripts (`--config_path`) as settings of ours.

`--upstream_config=FILE.yaml` stands for what the file says. A `--config` beside it is the base (by
default the variant of configs/longlive.py that the file is for), and `--config.field=value` wins.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from jaxvid.core.config import PREFIX, nearest

FLAG = "--upstream_config"
CONFIG = "configs/longlive.py"


class Key(NamedTuple):
    """What becomes of a key of the file: a field, or why there is none."""

    field: str = ""
    convert: Callable = lambda value: value
    note: str = ""


def _integers(value) -> tuple[int, ...]:
    """Upstream's comma-separated text; a list, which fails upstream, is taken as well."""
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(int(part) for part in (parts if isinstance(parts, list | tuple) else [parts]))


def _limit(value) -> int:
    """`inference_iter` is the number of the last sample, -1 stands for all."""
    return 0 if int(value) == -1 else int(value) + 1


KEYS = {
    "denoising_step_list": Key("rollout.steps", _integers),
    "warp_denoising_step": Key("rollout.warp_steps"),
    "num_frame_per_block": Key("rollout.block"),
    "model_kwargs.local_attn_size": Key("rollout.window"),
    "model_kwargs.sink_size": Key("rollout.sink"),
    "model_kwargs.timestep_shift": Key("rollout.shift"),
    "model_kwargs.use_infinite_attention": Key("rollout.relative_rope"),
    "global_sink": Key("rollout.global_sink"),
    "context_noise": Key("rollout.context_timestep"),
    "data_path": Key("sampling.prompts"),
    "inference_iter": Key("sampling.limit", _limit),
    "num_output_frames": Key("sampling.latent_frames"),
    "num_conditioning_frames": Key("sampling.conditioning_frames"),
    "switch_frame_indices": Key("sampling.switch_frames", _integers),
    "num_samples": Key("sampling.num_samples"),
    "seed": Key("sampling.seed"),
    "save_with_index": Key("sampling.names", lambda value: "index" if value else "prompt"),
    "output_folder": Key("run.output"),
    "generator_ckpt": Key("models.transformer"),
    "lora_ckpt": Key("models.lora"),
    "use_ema": Key("models.use_ema"),
    "adapter.rank": Key("models.lora_rank"),
    "adapter.alpha": Key("models.lora_alpha"),
    "adapter.type": Key(note="the only type is lora"),
    "adapter.dropout": Key(note="only for training"),
    "adapter.dtype": Key(note="unused upstream"),
    "adapter.verbose": Key(note="nothing to say"),
    "model_name": Key(note="unused upstream; the files are models.vae and models.text_encoder"),
    "model_kwargs.model_name": Key(note="the files are models.vae and models.text_encoder"),
}


MISSING = {  # what upstream takes for keys that a file leaves out (`utils/wan_wrapper.py`)
    "rollout.global_sink": "False",
    "rollout.window": "-1",
    "rollout.sink": "0",
    "rollout.shift": "8.0",
}


def yaml_overrides(argv: list[str]) -> list[str]:
    """The command line with the settings of an upstream config in place of its flag.

    Raises:
      ValueError: no such file, no YAML, or keys or values that there are not.
    """
    file, rest = _take(argv)
    if not file:
        return list(argv)
    found = _flat(_read(Path(file).expanduser()))
    assignments = dict(MISSING)
    for name, value in found.items():
        key = KEYS[name]
        if not key.note and value is not None:
            assignments[key.field] = str(_converted(file, name, key, value))
    if not (found.get("lora_ckpt") and any(name.startswith("adapter.") for name in found)):
        assignments["models.lora"] = ""  # as upstream, which wants both
    if not any(word == "--config" or word.startswith("--config=") for word in rest):
        rest = [f"--config={CONFIG}:{variant(found)}", *rest]
        print(f"no --config: what {file} does not set is as in {rest[0].partition('=')[2]}")
    return [*(f"{PREFIX}{field}={value}" for field, value in assignments.items()), *rest]


def variant(found: Mapping) -> str:
    """The variant of configs/longlive.py for the keys of a file."""
    if "num_conditioning_frames" in found:
        return "video_conditional"
    return "interactive" if "switch_frame_indices" in found else "t2v"


def _take(argv: list[str]) -> tuple[str, list[str]]:
    """The file of the flag, and the other words."""
    file, rest, words = "", [], list(argv)
    while words:
        word = words.pop(0)
        if word == FLAG and not words:
            raise ValueError(f"{FLAG} has no value; write {FLAG}=FILE.yaml")
        if word == FLAG:
            file = words.pop(0)
        elif word.startswith(f"{FLAG}="):
            file = word.partition("=")[2]
        else:
            rest.append(word)
    return file, rest


def _read(path: Path) -> Mapping:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ValueError(f"{FLAG}={path} cannot be read: {reason}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"{FLAG}={path} is no YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{FLAG}={path} holds no settings")
    return content


def _flat(content: Mapping) -> dict:
    """Keys as "section.key"; raises ValueError for one that upstream's scripts do not read."""
    found = {}
    sections = {name.partition(".")[0] for name in KEYS if "." in name}
    for name, value in content.items():
        if value is None and name in sections:
            continue
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        for key, leaf in inner:
            full = f"{name}.{key}" if key else str(name)
            if full not in KEYS:
                raise ValueError(f"{FLAG}: {full} is not a key of inference{nearest(full, KEYS)}")
            found[full] = leaf
    return found


def _converted(file: str, name: str, key: Key, value):
    try:
        return key.convert(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {name}: {value!r} is no value for it ({error})") from error
