"""PyTorch names and arguments of FDM checkpoints, both generations, in both directions."""

import collections
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
import optax

from jaxvid.core import torch_file
from jaxvid.core.convert import CONV2D, TRANSPOSE, Rule, Transform, to_ours, to_theirs
from jaxvid.fdm.model import Model, abstract_parameters
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.train import State
from jaxvid.fdm.unet import UNetConfig

BLOCK = r"{side:input_blocks|output_blocks}.{i:\d+}.{j:\d+}"
MIDDLE = r"middle_block.{j:\d+}"
ENCODING = Transform(  # (1, c, h, w) <-> (h, w, c)
    lambda a: np.transpose(a[0], (1, 2, 0)), lambda a: np.transpose(a, (2, 0, 1))[None]
)


def _pair(theirs: str, ours: str, transform, weight: str = "kernel") -> list[Rule]:
    return [
        Rule(f"{theirs}.weight", f"{ours}/{weight}", transform),
        Rule(f"{theirs}.bias", f"{ours}/bias", None),
    ]


def _block(theirs: str, ours: str) -> list[Rule]:
    """Rules of a residual or attention block."""
    conv, norm = CONV2D, None
    net, time = f"unet/{ours}", f"conditioner/{ours}"
    rules = [
        *_pair(f"{theirs}.in_layers.0", f"{net}/in_norm", norm, "scale"),
        *_pair(f"{theirs}.in_layers.2", f"{net}/in_conv", conv),
        *_pair(f"{theirs}.emb_layers.1", f"{time}_emb", TRANSPOSE),
        *_pair(f"{theirs}.out_layers.0", f"{net}/out_norm", norm, "scale"),
        *_pair(f"{theirs}.out_layers.3", f"{net}/out_conv", conv),
        *_pair(f"{theirs}.skip_connection", f"{net}/skip", CONV1X1),
    ]
    kind = "{kind:spatial|temporal}"
    attention = f"{theirs}.{kind}_attention"
    rules += _pair(f"{attention}.norm", f"{net}/{kind}/norm", norm, "scale")
    rules += _pair(f"{attention}.qkv", f"{net}/{kind}/qkv", TRANSPOSE)
    rules += _pair(f"{attention}.proj_out", f"{net}/{kind}/proj_out", TRANSPOSE)
    term = f"{theirs}.temporal_attention.{{rpe:rpe_q|rpe_k|rpe_v}}"
    layer = "{layer:embed_distances|embed_diffusion_time|out}"
    rules += _pair(f"{term}.rpe_net.{layer}", f"{time}_{{rpe}}/{layer}", TRANSPOSE)
    table = "lookup_table_weight"
    return [*rules, Rule(f"{term}.{table}", f"{time}_{{rpe}}/{table}", None)]


CONV1X1 = Transform(lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None])
RULES = [
    Rule("spatial_encoding", "unet/spatial_encoding", ENCODING),
    *_pair(r"time_embed.{i:\d+}", "conditioner/time_embed_{i}", TRANSPOSE),
    *_pair("input_blocks.0.0", "unet/input_blocks_0_0", CONV2D),
    *_block(BLOCK, "{side}_{i}_{j}"),
    *_pair(r"input_blocks.{i:\d+}.0.op", "unet/input_blocks_{i}_0", CONV2D),
    *_pair(r"output_blocks.{i:\d+}.{j:\d+}.conv", "unet/output_blocks_{i}_{j}", CONV2D),
    *_block(MIDDLE, "middle_block_{j}"),
    *_pair("out.0", "unet/out_norm", None, "scale"),
    *_pair("out.2", "unet/out_conv", CONV2D),
]


def family(state_dict: Mapping) -> str:
    """ "paper" or "refactored", from the first convolution and the spatial encoding.

    Raises:
      ValueError: the keys are not those of an FDM network.
    """
    first = state_dict.get("input_blocks.0.0.weight")
    if first is None or "time_embed.0.weight" not in state_dict:
        some = ", ".join(list(state_dict)[:3])
        raise ValueError(f"not an FDM checkpoint: no input_blocks.0.0.weight (keys: {some}, ...)")
    if "spatial_encoding" in state_dict or first.shape[1] in (3, 5, 6):
        return "paper"
    if first.shape[1] == 4:
        return "refactored"
    raise ValueError(f"not an FDM checkpoint: the first convolution has {first.shape[1]} inputs")


def unet_config(arguments: Mapping, state_dict: Mapping) -> UNetConfig:
    """The network of a checkpoint's training arguments; its tensors decide the family.

    arguments: upstream's `config` dict (spec of both generations; missing keys take the defaults).
    """
    size = int(arguments["image_size"])
    resolutions = [int(r) for r in str(arguments.get("attention_resolutions", "16,8")).split(",")]
    first = state_dict["input_blocks.0.0.weight"]
    fields = {
        "image_size": size,
        "channels": int(arguments.get("num_channels", 128)),
        "channel_mult": _integers(arguments.get("channel_mult", "")),
        "res_blocks": int(arguments.get("num_res_blocks", 2)),
        "attention_at": tuple(size // r for r in resolutions if r <= size),
        "heads": int(arguments.get("num_heads", 4)),
        "dropout": float(arguments.get("dropout", 0.0)),
        "scale_shift_norm": bool(arguments.get("use_scale_shift_norm", True)),
        "out_channels": 6 if arguments.get("learn_sigma") else 3,
        "remat": bool(arguments.get("use_checkpoint", False)),
    }
    if family(state_dict) == "refactored":
        heads_up = int(arguments.get("num_heads_upsample", -1))
        return UNetConfig(**fields, heads_up=heads_up)
    indicator = {3: "timestep", 4: "observed", 5: "observed+marginal", 6: "duplicate"}
    frames = int(arguments.get("T", -1))
    return UNetConfig(
        **fields,
        indicator=indicator[first.shape[1]],
        spatial_encoding="spatial_encoding" in state_dict,
        frame_encoding=bool(arguments.get("use_frame_encoding", False)),
        centre_frames=bool(arguments.get("enforce_position_invariance", False)),
        train_frames=frames,
        padding_attends=bool(arguments.get("allow_interactions_between_padding", True)),
        **_positions(arguments, state_dict, frames),
    )


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def _positions(arguments: Mapping, state_dict: Mapping, frames: int) -> dict:
    if not any(name.endswith("lookup_table_weight") for name in state_dict):
        return {"positions": "network"}
    buckets = (arguments.get(f"rp_{greek}") or frames for greek in ("alpha", "beta", "gamma"))
    return {"positions": "table", "buckets": tuple(int(value) for value in buckets)}


def diffusion_config(arguments: Mapping) -> DiffusionConfig:
    """The diffusion process of upstream's arguments."""
    variance = "fixed_small" if arguments.get("sigma_small") else "fixed_large"
    return DiffusionConfig(
        steps=int(arguments.get("diffusion_steps", arguments.get("steps", 1000))),
        schedule=arguments.get("noise_schedule", "linear"),
        respacing=arguments.get("timestep_respacing", "") or "",
        predict="clean" if arguments.get("predict_xstart") else "noise",
        variance="learned_range" if arguments.get("learn_sigma") else variance,
        loss="kl" if arguments.get("use_kl") else "mse",
        rescale_timesteps=bool(arguments.get("rescale_timesteps", True)),
    )


def parameters(state_dict: Mapping, config: UNetConfig) -> dict:
    """Our parameters from upstream's tensors, every name and shape checked."""
    return to_ours(state_dict, RULES, expected=abstract_parameters(config))


def state_dict(params: Mapping) -> dict:
    """Upstream's tensors from our parameters, in upstream's order."""
    theirs = to_theirs(params, RULES)
    return collections.OrderedDict((name, theirs[name]) for name in parameter_order(theirs))


def parameter_order(names) -> list[str]:
    """Upstream's registration order, which is also the order of its optimiser's states."""
    top = ["spatial_encoding", "time_embed", "input_blocks", "middle_block", "output_blocks", "out"]
    parts = [
        *("in_layers", "emb_layers", "out_layers", "skip_connection", "op", "conv"),
        *("spatial_attention", "temporal_attention", "qkv", "proj_out", "norm"),
        *("rpe_q", "rpe_k", "rpe_v", "rpe_net", "lookup_table_weight"),
        *("embed_distances", "embed_diffusion_time", "out", "weight", "bias"),
    ]

    def rank(name):
        first, *rest = name.split(".")
        return (
            top.index(first),
            [int(part) if part.isdigit() else parts.index(part) for part in rest],
        )

    return sorted(names, key=rank)


def read_checkpoint(path: Path) -> Model:
    """A model or EMA `.pt` file of either generation.

    Raises:
      ValueError: the file is no FDM checkpoint, or its tensors do not fit its own arguments.
    """
    content = torch_file.load(path)
    if not isinstance(content, Mapping) or "state_dict" not in content:
        raise ValueError(
            f"{path} is not an FDM model file: it has no 'state_dict' "
            "(optimiser files opt*.pt are read beside their model, by training only)"
        )
    arguments = dict(content.get("config") or {})
    tensors = content["state_dict"]
    family(tensors)
    if "image_size" not in arguments:
        raise ValueError(f"{path} has no training arguments ('config' with 'image_size')")
    config = unet_config(arguments, tensors)
    return Model(
        network=config,
        diffusion=dataclasses.replace(diffusion_config(arguments), respacing=""),
        params=parameters(tensors, config),
        arguments=arguments,
        step=int(content.get("step", 0)),
    )


def convert(sources: list[Path]) -> tuple[dict, dict]:
    """Parameters and checkpoint info of one upstream `.pt` file (for scripts/convert.py)."""
    if len(sources) != 1:
        raise ValueError(f"--source: an FDM checkpoint is one .pt file, got {len(sources)}")
    model = read_checkpoint(sources[0])
    return model.params, model.info()


def revert(params, info: Mapping) -> dict:
    """Upstream's nested file content from a checkpoint of ours.

    Levels other than upstream's for the image size are kept in an argument that upstream, which
    cannot have them, does not know.
    """
    if missing := [key for key in ("network", "arguments", "step") if key not in info]:
        raise ValueError(f"the checkpoint is damaged: its settings lack {', '.join(missing)}")
    levels = {"channel_mult": ",".join(map(str, info["network"]["channel_mult"]))}
    tensors = {name: np.asarray(a) for name, a in state_dict(params).items()}
    return {
        "state_dict": collections.OrderedDict(tensors),
        "config": dict(info["arguments"]) | (levels if levels["channel_mult"] else {}),
        "step": int(info["step"]),
    }


def optimizer_moments(path: Path, config: UNetConfig) -> tuple[dict, dict, int]:
    """First and second moments and the step count of an upstream AdamW file `opt*.pt`.

    Raises:
      ValueError: the file is no optimiser state, or does not fit the network.
    """
    content = torch_file.load(path)
    if not isinstance(content, Mapping) or "param_groups" not in content:
        raise ValueError(f"{path} is not an optimiser file: it has no 'param_groups'")
    names = parameter_order(to_theirs(_zeros(abstract_parameters(config)), RULES))
    states = content["state"]
    if len(states) != len(names):
        raise ValueError(f"{path} has {len(states)} parameters, the network has {len(names)}")
    order = content["param_groups"][0]["params"]
    moments = [
        parameters({name: states[i][part] for name, i in zip(names, order, strict=True)}, config)
        for part in ("exp_avg", "exp_avg_sq")
    ]
    return *moments, int(np.asarray(states[order[0]]["step"]))


def companion_state(path: Path, config: UNetConfig, state: State) -> State:
    """The training state with what lies beside an upstream model file: optimiser and EMAs.

    The count of updates starts at 0, as this is a new run; the optimiser keeps its own count.

    Args:
      path: `model550000.pt`, `model_550000.pt` or `model_latest.pt`, or an EMA file.
      config: the network.
      state: fresh state around the model's parameters; parts without a file stay as they are,
        with a line that says so.
    """
    match = re.fullmatch(r"(?:model_?|ema_[\d.]+_)(\d+|latest)\.pt", path.name)
    if not match:
        return state
    stamp = match[1]
    moments = [path.with_name(f"opt{dash}{stamp}.pt") for dash in ("", "_")]
    found = next((file for file in moments if file.exists()), None)
    optimizer = state.optimizer
    if found is None:
        print(f"{path.parent} has no opt{stamp}.pt: the optimiser starts fresh", flush=True)
    else:
        mu, nu, count = optimizer_moments(found, config)
        optimizer = _with_moments(optimizer, mu, nu, count)
    ema = dict(state.ema)
    for rate in ema:
        file = path.with_name(f"ema_{rate}_{stamp}.pt")
        if file.exists():
            ema[rate] = read_checkpoint(file).params
        else:
            print(f"{file} is not there: its EMA starts from {path.name}", flush=True)
    return state._replace(optimizer=optimizer, ema=ema)


def _with_moments(optimizer, mu, nu, count: int):
    """The optax state with AdamW's moments and the step count put in."""

    def fill(part):
        if isinstance(part, optax.ScaleByAdamState):
            return part._replace(mu=mu, nu=nu, count=np.int32(count))
        if isinstance(part, optax.ScaleByScheduleState):
            return part._replace(count=np.int32(count))
        return part

    known = (optax.ScaleByAdamState, optax.ScaleByScheduleState)
    return jax.tree.map(fill, optimizer, is_leaf=lambda part: isinstance(part, known))


def _zeros(tree):
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), tree)
