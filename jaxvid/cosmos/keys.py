"""PyTorch names of the Cosmos multiview network, and what they tell of its shape."""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from jaxvid.core.convert import TRANSPOSE, Rule, to_ours
from jaxvid.cosmos.dit import DitConfig
from jaxvid.cosmos.model import abstract_parameters

REGULAR, EMA = "net.", "net_ema."
WRAPPERS = re.compile(  # of distributed training, and levels of dicts that became part of names
    r"(_checkpoint_wrapped_module|_orig_mod|_fsdp_wrapped_module)\.|^(model|state_dict)\.(?=net)"
)
SKIPPED = re.compile(  # counters, tables (rounded in bfloat16 files), TransformerEngine's notes
    r"accum_\w+|pos_embedder(_options)?\..*|(.*[._])?_extra_state"
)
STACK = r"{stack:blocks|control_blocks}.{layer:\d+}."
ATTENTION = "{which:self_attn|cross_attn|cross_view_attn}"


def _linear(theirs: str, ours: str, bias: bool = False) -> list[Rule]:
    rules = [Rule(f"{theirs}.weight", f"{ours}/kernel", TRANSPOSE)]
    return [*rules, Rule(f"{theirs}.bias", f"{ours}/bias")] if bias else rules


RULES = (
    *_linear("{x:x_embedder|control_embedder}.proj.1", "{x}"),
    *_linear("t_embedder.1.linear_1", "time/in"),
    *_linear("t_embedder.1.linear_2", "time/out"),
    Rule("t_embedding_norm.weight", "time/norm/scale"),
    *_linear("crossattn_proj.0", "text", bias=True),
    *_linear(r"input_hint_block.{i:\d+}", "hint/layer_{i}", bias=True),
    Rule("view_embeddings.weight", "view_embedding/embedding"),
    Rule("adaln_view_embedder.weight", "view_rows/embedding"),
    *_linear("adaln_view_proj", "view_modulation", bias=True),
    *_linear("control_blocks.0.before_proj", "control_in", bias=True),
    *_linear(r"control_blocks.{layer:\d+}.after_proj", "control_blocks/after", bias=True),
    *_linear(STACK + ATTENTION + ".{x:[qkv]}_proj", "{stack}/{which}/{x}"),
    *_linear(STACK + ATTENTION + ".output_proj", "{stack}/{which}/o"),
    Rule(STACK + ATTENTION + ".{x:[qk]}_norm.weight", "{stack}/{which}/norm_{x}/scale"),
    Rule(STACK + "layer_norm_cross_view_attn.weight", "{stack}/cross_view_norm/scale"),
    Rule(STACK + "layer_norm_cross_view_attn.bias", "{stack}/cross_view_norm/bias"),
    *_linear(STACK + "mlp.layer1", "{stack}/mlp_in"),
    *_linear(STACK + "mlp.layer2", "{stack}/mlp_out"),
    *_linear(STACK + "adaln_modulation_{part:self_attn|cross_attn|mlp}.1",
             "{stack}/modulate_{part}/down"),
    *_linear(STACK + "adaln_modulation_{part:self_attn|cross_attn|mlp}.2",
             "{stack}/modulate_{part}/up"),
    *_linear("final_layer.adaln_modulation.1", "final/modulate/down"),
    *_linear("final_layer.adaln_modulation.2", "final/modulate/up"),
    *_linear("final_layer.linear", "final/out"),
)  # fmt: skip


class Renamed(Mapping):
    """Some entries of a mapping under other names; an entry is read when it is asked for."""

    def __init__(self, source: Mapping, names: Mapping[str, str]):
        self.source, self.names = source, names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str):
        return self.source[self.names[name]]


def network_tensors(tensors: Mapping) -> Renamed:
    """The network's tensors under their own names.

    Those of the EMA (`net_ema.`) if there are any, else those under `net.` or without a prefix;
    wrappers are taken off, and entries that are no weights are left out.
    """
    names = {name: WRAPPERS.sub("", name) for name in tensors}
    prefixes = [p for p in (EMA, REGULAR) if any(n.startswith(p) for n in names.values())]
    prefix = prefixes[0] if prefixes else ""
    found = {}
    for name, clean in names.items():
        own = clean.removeprefix(prefix)
        if not clean.startswith(prefix) or SKIPPED.fullmatch(own):
            continue
        if own in found:
            raise ValueError(f"two tensors are called {own} without their wrappers' prefixes")
        found[own] = name
    if not any(own.endswith((".weight", ".bias")) for own in found):
        raise ValueError("it holds no tensors of a network")
    return Renamed(tensors, found)


def config_of(tensors: Mapping, settings: Mapping | None = None) -> DitConfig:
    """The network's shape from its tensors, and from upstream's settings what they do not tell.

    Args:
      tensors: of `network_tensors`.
      settings: keyword arguments of upstream's network. Without them: hints are spaced evenly, and
        the variants' published values hold (RoPE over frames 8/24, or 1 with attention over views
        apart, where then every view sees every other).
    Raises:
      ValueError: not this kind of network, or settings that are not reimplemented.
    """
    settings = dict(settings or {})
    _refuse_others(settings)
    try:
        return _config(_Shapes(tensors), settings)
    except KeyError as error:
        raise ValueError(
            f"not a Cosmos multiview network with a control branch: no {error.args[0]}"
        ) from None


class _Shapes:
    """Sizes of tensors by name; KeyError for what is not there."""

    def __init__(self, tensors: Mapping):
        self.tensors = tensors

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def __call__(self, name: str) -> tuple[int, ...]:
        shape = np.shape(self.tensors[name])
        if len(shape) != (1 if name.endswith("norm.weight") else 2):
            raise ValueError(f"{name} has shape {shape}, which is no Cosmos network's")
        return shape

    def layers(self, stack: str) -> int:
        found = {m[1] for m in (re.match(rf"{stack}\.(\d+)\.", n) for n in self.tensors) if m}
        if not found:
            raise KeyError(f"{stack}.0")
        return len(found)


def _config(shape: _Shapes, settings: dict) -> DitConfig:
    head_width = shape("blocks.0.self_attn.q_norm.weight")[0]
    width, inputs = shape("x_embedder.proj.1.weight")
    patch = settings.get("patch_spatial", 2)
    channels = shape("final_layer.linear.weight")[0] // patch**2
    cross_view = "blocks.0.cross_view_attn.q_proj.weight" in shape
    views, view_channels, modulated = _views(shape, settings)
    if inputs != patch**2 * (channels + 2 + view_channels):
        raise ValueError(f"x_embedder has {inputs} inputs, which does not fit {channels} channels")
    control = shape("control_embedder.proj.1.weight")[1] // patch**2 - 2 - view_channels
    depth, hints = shape.layers("blocks"), shape.layers("control_blocks")
    projected = "crossattn_proj.0.weight" in shape
    first_n = settings.get("condition_strategy", "spaced") == "first_n"
    stretch = 1.0 if cross_view else 8 / 24
    config = DitConfig(
        depth=depth,
        width=width,
        heads=width // head_width,
        mlp=shape("blocks.0.mlp.layer1.weight")[0],
        channels=channels,
        patch=patch,
        modulation_rank=shape("blocks.0.adaln_modulation_mlp.1.weight")[0],
        text_in=shape("crossattn_proj.0.weight")[1] if projected else 0,
        text_width=shape("blocks.0.cross_attn.k_proj.weight")[1],
        views=views,
        view_channels=view_channels,
        view_modulation=modulated,
        neighbours=_neighbours(settings, views) if cross_view else (),
        stretch=(
            float(settings.get("rope_t_extrapolation_ratio", stretch)),
            float(settings.get("rope_h_extrapolation_ratio", 3.0)),
            float(settings.get("rope_w_extrapolation_ratio", 3.0)),
        ),
        control_every=settings.get("vace_block_every_n", -(-depth // hints)),
        control_layers="first_n" if first_n else "spaced",
        modalities=control // (channels + view_channels),
        hint="input_hint_block.0.weight" in shape,
        timestep_scale=float(settings.get("timestep_scale", 0.001)),
    )
    if len(config.hinted) != hints:
        raise ValueError(
            f"vace_block_every_n={config.control_every} puts hints after {len(config.hinted)} "
            f"blocks, but there are {hints} control blocks"
        )
    return config


def _views(shape: _Shapes, settings: dict) -> tuple[int, int, bool]:
    """How many views there can be, their channels among the inputs, whether they modulate."""
    views, channels = settings.get("n_cameras_emb", 7), 0
    if "view_embeddings.weight" in shape:
        views, channels = shape("view_embeddings.weight")
    modulated = "adaln_view_embedder.weight" in shape
    if modulated:
        views = shape("adaln_view_embedder.weight")[0]
    return views, channels, modulated


def _neighbours(settings: dict, views: int) -> tuple[tuple[int, ...], ...]:
    """For each view id the ids that it looks at; without settings, all others."""
    named, ids = settings.get("cross_view_attn_map_str"), settings.get("camera_to_view_id")
    if not named or not ids:
        return tuple(tuple(j for j in range(views) if j != i) for i in range(views))
    looks: dict[int, tuple[int, ...]] = {
        ids[name]: tuple(ids[other] for other in others) for name, others in named.items()
    }
    return tuple(looks.get(i, ()) for i in range(views))


def settings_of(config: DitConfig) -> dict:
    """Upstream's settings that tensors do not tell, the way back of `config_of`."""
    ratios = zip("thw", config.stretch, strict=True)
    found = {
        "patch_spatial": config.patch,
        "n_cameras_emb": config.views,
        **{f"rope_{axis}_extrapolation_ratio": ratio for axis, ratio in ratios},
        "vace_block_every_n": config.control_every,
        "condition_strategy": config.control_layers,
        "timestep_scale": config.timestep_scale,
    }
    if config.cross_view:
        looks = {str(i): list(map(str, ids)) for i, ids in enumerate(config.neighbours)}
        found["cross_view_attn_map_str"] = looks
        found["camera_to_view_id"] = {str(i): i for i in range(config.views)}
    return found


ONLY = {  # settings of upstream's network, and the one value that is reimplemented
    "use_adaln_lora": True,
    "concat_padding_mask": True,
    "vace_has_mask": False,
    "rope_enable_fps_modulation": False,
    "extra_per_block_abs_pos_emb": False,
    "patch_temporal": 1,
    "pos_emb_cls": "rope3d",
    "pos_emb_interpolation": "crop",
}


def _refuse_others(settings: Mapping) -> None:
    for name, value in ONLY.items():
        if settings.get(name, value) != value:
            raise ValueError(f"{name}={settings[name]!r} is not supported, only {value!r}")


def parameters(tensors: Mapping, config: DitConfig) -> dict:
    """Our parameters, every name and shape checked."""
    return to_ours(tensors, RULES, expected=abstract_parameters(config))
