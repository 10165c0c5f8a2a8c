"""Goldens of Cosmos' text encoder."""

import numpy as np

from jaxvid.core import torch_file
from jaxvid.cosmos import text, text_keys


def load(case):
    """Config and parameters, through the converter, of the case's real file."""
    theirs = case.config["config"]
    settings = {
        "heads": theirs["num_attention_heads"],
        "theta": theirs["rope_theta"],
        "epsilon": theirs["rms_norm_eps"],
    }
    file = case.folder / case.config.get("weights_from", "weights.safetensors")
    state = torch_file.load(file)
    config, params = text_keys.parameters(state, **settings)
    used = text_keys.language_part(state)
    back = text_keys.state_dict(params)
    assert set(back) == set(used)
    for name, array in used.items():
        np.testing.assert_array_equal(back[name], array, name)
    names = {"width": "hidden_size", "key_heads": "num_key_value_heads",
             "layers": "num_hidden_layers", "hidden": "intermediate_size",
             "vocabulary": "vocab_size"}  # fmt: skip
    for ours, name in names.items():
        assert getattr(config, ours) == theirs[name], name
    return config, params


def check_full_concat(case):
    config, params = load(case)
    io = case.io
    positions = io["position_ids"]
    assert (positions == positions[0, 0]).all(), "text has one position for all axes and prompts"
    blocks = [params[f"block_{i}"] for i in range(config.layers)]
    arguments = (config, params["embedding"], blocks, params["norm"], io["input_ids"])
    arguments += (positions[0, 0],)
    case.close(params["embedding"][io["input_ids"]], io["hidden_states.0"], "hidden_states.0")
    for i, state in enumerate(text.states(*arguments), start=1):
        case.close(state, io[f"hidden_states.{i}"], f"hidden_states.{i}")
    case.close(text.embeddings(*arguments), io["full_concat"], "full_concat")


CHECKS = {"cosmos/qwen_text_full_concat": check_full_concat}
