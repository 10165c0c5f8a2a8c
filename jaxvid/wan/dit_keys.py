"""PyTorch names of the Wan transformer (original and diffusers) and of its PEFT adapters."""

import re
from collections.abc import Mapping

from jaxvid.core.convert import CONV3D, TRANSPOSE, Rule, Transform, to_ours
from jaxvid.wan.dit import WanConfig, abstract_parameters
from jaxvid.wan.lora import LoraConfig, abstract_adapters, rank_of

FIRST_AXIS = Transform(lambda a: a[0], lambda a: a[None])  # (1, n, c) <-> (n, c)
WRAPPERS = ("_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_orig_mod")
PEFT_PREFIX = "base_model.model."
BLOCK = r"blocks.{layer:\d+}."
LAYER = re.compile(r"blocks\.(\d+)\.")
HEAD_WIDTH = 128  # of every Wan2.1 release; the tensors do not tell


def _linear(theirs: str, ours: str) -> list[Rule]:
    return [
        Rule(f"{theirs}.weight", f"{ours}/kernel", TRANSPOSE),
        Rule(f"{theirs}.bias", f"{ours}/bias"),
    ]


def _patches(theirs: str = "patch_embedding") -> list[Rule]:
    return [
        Rule(f"{theirs}.weight", "patch_embedding/kernel", CONV3D),
        Rule(f"{theirs}.bias", "patch_embedding/bias"),
    ]


ATTENTION = "{which:self_attn|cross_attn}"
ORIGINAL = (
    *_patches(),
    *_linear("text_embedding.0", "text_in"),
    *_linear("text_embedding.2", "text_out"),
    *_linear("time_embedding.0", "time_embedding/in"),
    *_linear("time_embedding.2", "time_embedding/out"),
    *_linear("time_projection.1", "time_embedding/projection"),
    Rule(BLOCK + "modulation", "blocks/modulation", FIRST_AXIS),
    *_linear(BLOCK + ATTENTION + ".{x:[qkvo]}", "blocks/{which}/{x}"),
    Rule(BLOCK + ATTENTION + ".{x:norm_[qk]}.weight", "blocks/{which}/{x}/scale"),
    Rule(BLOCK + "norm3.weight", "blocks/norm3/scale"),
    Rule(BLOCK + "norm3.bias", "blocks/norm3/bias"),
    *_linear(BLOCK + "ffn.0", "blocks/ffn_in"),
    *_linear(BLOCK + "ffn.2", "blocks/ffn_out"),
    Rule("head.modulation", "head/modulation", FIRST_AXIS),
    *_linear("head.head", "head/out"),
)


def _diffusers_attention(theirs: str, ours: str) -> list[Rule]:
    return [
        *_linear(f"{theirs}.to_{{x:[qkv]}}", f"{ours}/{{x}}"),
        *_linear(f"{theirs}.to_out.0", f"{ours}/o"),
        Rule(f"{theirs}.{{x:norm_[qk]}}.weight", f"{ours}/{{x}}/scale"),
    ]


DIFFUSERS = (
    *_patches(),
    *_linear("condition_embedder.text_embedder.linear_1", "text_in"),
    *_linear("condition_embedder.text_embedder.linear_2", "text_out"),
    *_linear("condition_embedder.time_embedder.linear_1", "time_embedding/in"),
    *_linear("condition_embedder.time_embedder.linear_2", "time_embedding/out"),
    *_linear("condition_embedder.time_proj", "time_embedding/projection"),
    Rule(BLOCK + "scale_shift_table", "blocks/modulation", FIRST_AXIS),
    *_diffusers_attention(BLOCK + "attn1", "blocks/self_attn"),
    *_diffusers_attention(BLOCK + "attn2", "blocks/cross_attn"),
    Rule(BLOCK + "norm2.weight", "blocks/norm3/scale"),
    Rule(BLOCK + "norm2.bias", "blocks/norm3/bias"),
    *_linear(BLOCK + "ffn.net.0.proj", "blocks/ffn_in"),
    *_linear(BLOCK + "ffn.net.2", "blocks/ffn_out"),
    Rule("scale_shift_table", "head/modulation", FIRST_AXIS),
    *_linear("proj_out", "head/out"),
)
LAYOUTS = {"original": ORIGINAL, "diffusers": DIFFUSERS}


def _adapter(theirs: str, ours: str) -> list[Rule]:
    return [
        Rule(f"{theirs}.lora_A.weight", f"{ours}/a", TRANSPOSE),
        Rule(f"{theirs}.lora_B.weight", f"{ours}/b", TRANSPOSE),
    ]


LORA = (
    *_adapter(BLOCK + ATTENTION + ".{x:[qkvo]}", "blocks/{which}/{x}"),
    *_adapter(BLOCK + "ffn.0", "blocks/ffn_in"),
    *_adapter(BLOCK + "ffn.2", "blocks/ffn_out"),
)


def layout_of(tensors: Mapping) -> str:
    """ "original" or "diffusers"; raises ValueError for anything but a Wan2.1 text-to-video one."""
    if "condition_embedder.time_proj.weight" in tensors:
        layout = "diffusers"
    elif "time_projection.1.weight" in tensors:
        layout = "original"
    else:
        some = ", ".join(list(tensors)[:3])
        raise ValueError(f"not a Wan transformer: no time projection (tensors: {some}, ...)")
    if "patch_embedding.weight" not in tensors:
        raise ValueError("the Wan transformer has no patch_embedding.weight")
    if any("img_emb" in name or "image_embedder" in name for name in tensors):
        raise ValueError("this is an image-to-video transformer; only text-to-video ones are read")
    return layout


def config_of(tensors: Mapping, settings: Mapping | None = None) -> WanConfig:
    """The network's shape from its tensors, and from upstream's `config.json` what they lack."""
    settings = dict(settings or {})
    layers = {int(match[1]) for match in map(LAYER.match, tensors) if match}
    first = {n: a for n, a in tensors.items() if not LAYER.match(n) or n.startswith("blocks.0.")}
    params = to_ours(first, LAYOUTS[layout_of(tensors)])
    try:
        *sizes, channels, width = params["patch_embedding"]["kernel"].shape
        text, time = params["text_in"]["kernel"], params["time_embedding"]["in"]["kernel"]
        mlp = params["blocks"]["ffn_in"]["kernel"].shape[-1]
    except KeyError as error:
        raise ValueError(f"the Wan transformer lacks the tensors of {error}") from None
    heads = settings.get("num_heads", settings.get("num_attention_heads"))
    if heads is None and width % HEAD_WIDTH:
        raise ValueError(
            f"a network of width {width} has no heads of {HEAD_WIDTH} channels: "
            "give its config.json as another --source"
        )
    return WanConfig(
        depth=len(layers),
        width=width,
        heads=int(heads or width // HEAD_WIDTH),
        mlp=mlp,
        channels=channels,
        patch=tuple(sizes),
        text_width=text.shape[0],
        text_length=int(settings.get("text_len", 512)),
        frequencies=time.shape[0],
        epsilon=float(settings.get("eps", 1e-6)),
    )


def clean_names(tensors: Mapping) -> dict:
    """Names without the wrappers of distributed training and without one leading `model.`."""
    wrappers = re.compile(rf"({'|'.join(WRAPPERS)})\.")
    names = {name: wrappers.sub("", name).removeprefix("model.") for name in tensors}
    if len(set(names.values())) < len(names):
        raise ValueError("two tensors have the same name without their wrappers' prefixes")
    return {names[name]: array for name, array in tensors.items()}


def parameters(tensors: Mapping, config: WanConfig) -> dict:
    """Our parameters from cleaned names of either layout, every name and shape checked."""
    return to_ours(tensors, LAYOUTS[layout_of(tensors)], expected=abstract_parameters(config))


def adapters(tensors: Mapping, config: WanConfig) -> dict:
    """Our adapters from PEFT's names, with or without `base_model.model.` and `.default`."""
    tensors = {
        name.removeprefix(PEFT_PREFIX).replace(".default.", "."): array
        for name, array in clean_names(tensors).items()
    }
    lora = to_ours(tensors, LORA)
    rank = LoraConfig(rank=rank_of(lora))
    return to_ours(tensors, LORA, expected=abstract_adapters(abstract_parameters(config), rank))
