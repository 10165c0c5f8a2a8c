"""PyTorch names and layouts of the Wan2.1 VAE: upstream's own, and those of diffusers.

Upstream numbers all layers between the ends of a network as one list, as we do. diffusers'
`AutoencoderKLWan` keeps that for the encoder and groups the decoder by levels. The normalisation
constants of the latents are in no file.
"""

import collections
import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core import checkpoint, torch_file
from jaxvid.core.config import build
from jaxvid.core.convert import CONV2D, CONV3D, Rule, Transform, to_ours, to_theirs
from jaxvid.core.distributed import place
from jaxvid.core.mesh import replicated
from jaxvid.core.random_tree import draw
from jaxvid.wan.vae import MEAN, VaeConfig, abstract_parameters

GAIN = Transform(  # (c, 1, 1, 1) <-> (c,)
    lambda a: a.reshape(-1), lambda a: a.reshape(-1, 1, 1, 1)
)
IMAGE_GAIN = Transform(lambda a: a.reshape(-1), lambda a: a.reshape(-1, 1, 1))
DENSE = Transform(  # (out, in, 1, 1, 1) <-> (in, out)
    lambda a: a[:, :, 0, 0, 0].T, lambda a: a.T[:, :, None, None, None]
)
IMAGE_DENSE = Transform(lambda a: a[:, :, 0, 0].T, lambda a: a.T[:, :, None, None])
TIME = Transform(  # (out, in, 3, 1, 1) <-> (3, in, out)
    lambda a: np.transpose(a[..., 0, 0], (2, 1, 0)),
    lambda a: np.transpose(a, (2, 1, 0))[..., None, None],
)


def pair(theirs: str, ours: str, transform) -> list[Rule]:
    return [
        Rule(f"{theirs}.weight", f"{ours}/kernel", transform),
        Rule(f"{theirs}.bias", f"{ours}/bias", None),
    ]


def residual_rules(theirs: str, ours: str) -> list[Rule]:
    rules = [*pair(f"{theirs}.shortcut", f"{ours}/shortcut", DENSE)]
    for number, norm, conv in ((1, 0, 2), (2, 3, 6)):
        rules.append(Rule(f"{theirs}.residual.{norm}.gamma", f"{ours}/norm{number}/scale", GAIN))
        rules += pair(f"{theirs}.residual.{conv}", f"{ours}/conv{number}", CONV3D)
    return rules


def resample_rules(theirs: str, ours: str) -> list[Rule]:
    return [
        *pair(f"{theirs}.resample.1", ours, CONV2D),
        *pair(f"{theirs}.time_conv", f"{ours}/time_conv", TIME),
    ]


def attention_rules(theirs: str, ours: str) -> list[Rule]:
    return [
        Rule(f"{theirs}.norm.gamma", f"{ours}/norm/scale", IMAGE_GAIN),
        *pair(f"{theirs}.to_qkv", f"{ours}/qkv", IMAGE_DENSE),
        *pair(f"{theirs}.proj", f"{ours}/proj", IMAGE_DENSE),
    ]


def _ends(side: str) -> list[Rule]:
    return [
        *pair(f"{side}.conv1", f"{side}/conv_in", CONV3D),
        *residual_rules(f"{side}.middle.{{i:0|2}}", f"{side}/mid_{{i}}"),
        *attention_rules(f"{side}.middle.1", f"{side}/mid_1"),
        Rule(f"{side}.head.0.gamma", f"{side}/norm_out/scale", GAIN),
        *pair(f"{side}.head.2", f"{side}/conv_out", CONV3D),
    ]


def _list(theirs: str, ours: str) -> list[Rule]:
    return [*residual_rules(theirs, ours), *resample_rules(theirs, ours)]


RULES = [
    *pair("conv1", "encoder/quant", DENSE),
    *pair("conv2", "decoder/post_quant", DENSE),
    *_ends("encoder"),
    *_ends("decoder"),
    *_list(r"encoder.downsamples.{i:\d+}", "encoder/down_{i}"),
    *_list(r"decoder.upsamples.{i:\d+}", "decoder/up_{i}"),
]

# From upstream's names to those of diffusers; the decoder's list is cut into levels besides.
DIFFUSERS_PARTS = (
    (r"^conv1\.", "quant_conv."),
    (r"^conv2\.", "post_quant_conv."),
    (r"^(encoder|decoder)\.conv1\.", r"\1.conv_in."),
    (r"\.head\.0\.", ".norm_out."),
    (r"\.head\.2\.", ".conv_out."),
    (r"\.middle\.0\.", ".mid_block.resnets.0."),
    (r"\.middle\.1\.", ".mid_block.attentions.0."),
    (r"\.middle\.2\.", ".mid_block.resnets.1."),
    (r"\.downsamples\.", ".down_blocks."),
    (r"\.residual\.0\.", ".norm1."),
    (r"\.residual\.2\.", ".conv1."),
    (r"\.residual\.3\.", ".norm2."),
    (r"\.residual\.6\.", ".conv2."),
    (r"\.shortcut\.", ".conv_shortcut."),
)


def diffusers_name(name: str, blocks: int) -> str:
    """diffusers' name of one of upstream's tensors; `blocks` is that of the config."""
    for pattern, replacement in DIFFUSERS_PARTS:
        name = re.sub(pattern, replacement, name)

    def in_level(match):
        level, place = divmod(int(match[1]), blocks + 2)
        part = "upsamplers.0" if place == blocks + 1 else f"resnets.{place}"
        return f".up_blocks.{level}.{part}."

    return re.sub(r"\.upsamples\.(\d+)\.", in_level, name)


def config_of(state: Mapping, **changes) -> VaeConfig:
    """The shape of the network that a state dict is of, upstream's or diffusers'.

    changes: further fields of the config, such as mean and std, which are in no file; without
      them the latents of any but 16 channels stay as they are.
    Raises:
      ValueError: these are not the tensors of a Wan2.1 VAE.
    """
    diffusers = is_diffusers(state)
    part = "encoder.down_blocks" if diffusers else "encoder.downsamples"
    conv = "conv1" if diffusers else "residual.2"
    first = "encoder.conv_in" if diffusers else "encoder.conv1"
    last = "post_quant_conv" if diffusers else "conv2"
    needed = (f"{first}.weight", f"{last}.weight", f"{part}.0.{conv}.weight")
    missing = [name for name in needed if name not in state]
    if missing:
        some = ", ".join(list(state)[:3])
        raise ValueError(f"not a Wan2.1 VAE: no {missing[0]} (it holds {some}, ...)")
    levels, halve_time = [[]], []
    for i in itertools.count():
        if f"{part}.{i}.resample.1.weight" in state:
            halve_time.append(f"{part}.{i}.time_conv.weight" in state)
            levels.append([])
        elif f"{part}.{i}.{conv}.weight" in state:
            levels[-1].append(state[f"{part}.{i}.{conv}.weight"].shape[0])
        else:
            break
    width, channels = (state[f"{name}.weight"].shape[0] for name in (first, last))
    if channels != len(MEAN):
        changes = {"mean": (0.0,) * channels, "std": (1.0,) * channels} | changes
    return VaeConfig(
        width=width,
        latent_channels=channels,
        multipliers=tuple(level[-1] // width if level else 0 for level in levels),
        blocks=len(levels[0]),
        halve_time=tuple(halve_time),
        **changes,
    )


def is_diffusers(state: Mapping) -> bool:
    return "post_quant_conv.weight" in state


def parameters(config: VaeConfig, state: Mapping) -> dict:
    """Our parameters {"encoder", "decoder"} from a state dict, upstream's or diffusers'.

    Raises:
      ValueError: names are left over on either side, or a shape is another than the config's.
    """
    if is_diffusers(state):
        theirs = {diffusers_name(name, config.blocks): name for name in upstream_shapes(config)}
        state = {theirs.get(name, name): array for name, array in state.items()}
    return to_ours(state, RULES, expected=abstract_parameters(config))


def state_dict(params: Mapping) -> dict:
    """Upstream's flat state dict of our parameters."""
    return to_theirs(params, RULES)


def upstream_shapes(config: VaeConfig) -> dict:
    """Upstream's names with arrays of the right shape that hold nothing."""
    empty = jax.tree.map(
        lambda a: np.broadcast_to(np.zeros((), a.dtype), a.shape), abstract_parameters(config)
    )
    return state_dict(empty)


def convert(sources: Sequence) -> tuple[dict, dict]:
    """Parameters and the note of our checkpoint, of the one upstream or diffusers file."""
    if len(sources) != 1:
        raise ValueError(f"the Wan2.1 VAE is one file, got {len(sources)} of --source")
    state = torch_file.load(sources[0])
    if not isinstance(state, Mapping):
        raise ValueError(f"{sources[0]} holds {type(state).__name__}, not a state dict")
    try:
        config = config_of(state)
        return parameters(config, state), {"config": dataclasses.asdict(config)}
    except ValueError as error:
        raise ValueError(f"{sources[0]}: {error}") from error


def revert(params: Mapping, info: Mapping) -> dict:
    """What upstream's file held, for `torch_file.save_pt`."""
    return collections.OrderedDict(state_dict(params))


def describe(path, dtype: str = "bfloat16") -> VaeConfig:
    """The shape of a VAE as `load` finds it, without reading its numbers.

    Raises:
      ValueError: a file or checkpoint of something else, in one line that names it.
    """
    path = Path(path).expanduser()
    if path.is_file():
        content = torch_file.load(path)
        try:
            if not isinstance(content, Mapping):
                raise ValueError(f"holds a {type(content).__name__}, not a VAE")
            config = config_of(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return dataclasses.replace(config, dtype=dtype)
    info = checkpoint.read_info(path)
    if info.get("model") != "wan_vae":
        raise ValueError(f"{path} is a checkpoint of {info.get('model')!r}, not wan_vae")
    return build(VaeConfig, {**info["config"], "dtype": dtype}, f"{path}: config")


def load_or_draw(models, config: VaeConfig, mesh) -> dict:
    """Parameters on every device of the mesh.

    Args:
      models: has `vae`, a path for `load`, and dtype, random and random_seed: drawn if random.
      config: the shape to draw.
    """
    if not models.random:
        return load(models.vae, models.dtype, replicated(mesh))[1]
    abstract = abstract_parameters(config)
    places = jax.tree.map(lambda _: replicated(mesh), abstract)
    return draw(abstract, models.random_seed, models.dtype, places)


def load(path, dtype: str = "bfloat16", sharding=None) -> tuple[VaeConfig, dict]:
    """The VAE of a checkpoint folder of ours, or of an upstream or diffusers file.

    Args:
      dtype: of activations, and the type that parameters are cast to.
      sharding: where each parameter goes (default: one device).
    Raises:
      ValueError: no such file, or one of another kind.
    """
    path = Path(path).expanduser()
    if path.is_file():
        params, info = convert([path])
    else:
        params, info = None, checkpoint.read_info(path)
        if info.get("model") != "wan_vae":
            raise ValueError(f"{path} is a checkpoint of {info.get('model')!r}, not of 'wan_vae'")
    config = build(VaeConfig, {**info["config"], "dtype": dtype}, f"{path}: config")
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, dtype, sharding=sharding),
        abstract_parameters(config),
    )
    if params is None:
        return config, checkpoint.restore(path, like)
    cast = jax.tree.map(lambda a: np.asarray(a, jnp.dtype(dtype)), params)
    return config, jax.device_put(cast, sharding) if sharding is None else place(cast, sharding)
