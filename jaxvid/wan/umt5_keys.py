"""PyTorch names of the UMT5 encoder: Wan's own, and those of transformers' UMT5EncoderModel."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jaxvid.core import torch_file
from jaxvid.core.convert import TRANSPOSE, Rule, to_ours, to_theirs
from jaxvid.wan.umt5 import Umt5Config, abstract_parameters

BLOCK = r"blocks.{i:\d+}"
RULES = (
    Rule("token_embedding.weight", "embedding", None),
    Rule(f"{BLOCK}.norm{{n:1|2}}.weight", "block_{i}/norm{n}/scale", None),
    Rule(f"{BLOCK}.attn.{{x:q|k|v|o}}.weight", "block_{i}/{x}/kernel", TRANSPOSE),
    Rule(f"{BLOCK}.pos_embedding.embedding.weight", "block_{i}/positions", None),
    Rule(f"{BLOCK}.ffn.gate.0.weight", "block_{i}/gate/kernel", TRANSPOSE),
    Rule(f"{BLOCK}.ffn.{{x:fc1|fc2}}.weight", "block_{i}/{x}/kernel", TRANSPOSE),
    Rule("norm.weight", "norm/scale", None),
)

PART = r"encoder.block.{i:\d+}.layer"
ATTENTION = f"{PART}.0.SelfAttention"
GATED = f"{PART}.1.DenseReluDense"
TRANSFORMERS_RULES = (
    Rule("shared.weight", "embedding", None),
    Rule("encoder.embed_tokens.weight", None),  # the same again
    Rule(f"{PART}.0.layer_norm.weight", "block_{i}/norm1/scale", None),
    Rule(f"{ATTENTION}.{{x:q|k|v|o}}.weight", "block_{i}/{x}/kernel", TRANSPOSE),
    Rule(f"{ATTENTION}.relative_attention_bias.weight", "block_{i}/positions", None),
    Rule(f"{PART}.1.layer_norm.weight", "block_{i}/norm2/scale", None),
    Rule(f"{GATED}.wi_0.weight", "block_{i}/gate/kernel", TRANSPOSE),
    Rule(f"{GATED}.wi_1.weight", "block_{i}/fc1/kernel", TRANSPOSE),
    Rule(f"{GATED}.wo.weight", "block_{i}/fc2/kernel", TRANSPOSE),
    Rule("encoder.final_layer_norm.weight", "norm/scale", None),
)


def rules_of(state: Mapping) -> Sequence[Rule]:
    """The table for a state dict; raises ValueError if it is of neither layout."""
    for name, rules in (("token_embedding.weight", RULES), ("shared.weight", TRANSFORMERS_RULES)):
        if name in state:
            return rules
    some = ", ".join(list(state)[:3])
    raise ValueError(f"not a UMT5 encoder: no token_embedding.weight (it holds {some}, ...)")


def with_shared_table(state: Mapping) -> dict:
    """transformers may store its one table of tokens under either of two names."""
    if "shared.weight" not in state and "encoder.embed_tokens.weight" in state:
        return {**state, "shared.weight": state["encoder.embed_tokens.weight"]}
    return dict(state)


def parameters(state: Mapping, **changes) -> tuple[Umt5Config, dict]:
    """Config and our parameters of a state dict of either layout, without copying a tensor.

    changes: fields of the config that no tensor tells (max_distance, epsilon, dtype).
    Raises:
      ValueError: tensors of another model, names left over, or shapes that do not fit together.
    """
    state = with_shared_table(state)
    rules = rules_of(state)
    params = to_ours(state, rules)
    config = _config_of(params, changes)
    return config, to_ours(state, rules, expected=abstract_parameters(config))


def _config_of(params: Mapping, changes: Mapping) -> Umt5Config:
    try:
        first = params["block_0"]
        buckets, heads = first["positions"].shape
        vocabulary, width = params["embedding"].shape
        attention_width, hidden = first["q"]["kernel"].shape[1], first["gate"]["kernel"].shape[1]
    except (KeyError, ValueError) as error:
        raise ValueError(f"not a whole UMT5 encoder: its first block lacks {error}") from error
    return Umt5Config(
        vocabulary=vocabulary,
        width=width,
        attention_width=attention_width,
        hidden=hidden,
        heads=heads,
        layers=sum(name.startswith("block_") for name in params),
        buckets=buckets,
        **changes,
    )


def state_dict(params: Mapping) -> dict:
    """Wan's flat state dict of our parameters."""
    return to_theirs(params, RULES)


def transformers_state_dict(params: Mapping) -> dict:
    """The state dict of transformers' UMT5EncoderModel."""
    state = to_theirs(params, TRANSFORMERS_RULES[:1] + TRANSFORMERS_RULES[2:])
    return {**state, "encoder.embed_tokens.weight": state["shared.weight"]}


def upstream_shapes(config: Umt5Config) -> dict:
    """Wan's names with arrays of the right shape that hold nothing."""
    empty = jax.tree.map(
        lambda a: np.broadcast_to(np.zeros((), a.dtype), a.shape), abstract_parameters(config)
    )
    return state_dict(empty)


def convert(sources: Sequence) -> tuple[dict, dict]:
    """Parameters and the note of our checkpoint, of upstream's or transformers' files."""
    try:
        config, params = parameters(torch_file.load_all(sources))
    except ValueError as error:
        if str(error).startswith(str(sources[0])):
            raise
        raise ValueError(f"{sources[0]}: {error}") from error
    return params, {"config": dataclasses.asdict(config)}


def revert(params: Mapping, info: Mapping) -> dict:
    """What Wan's file held, for `torch_file.save_pt`."""
    return collections.OrderedDict(state_dict(params))
