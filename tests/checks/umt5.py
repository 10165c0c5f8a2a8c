"""Goldens of the UMT5 encoder and its tokenizer."""

import dataclasses
import functools

import jax
import numpy as np
from einops import rearrange

from jaxvid.core import torch_file
from jaxvid.wan import umt5, umt5_keys
from jaxvid.wan.tokenizer import CLEANING, Tokenizer


def load(case, **changes):
    """Config and parameters, through the converter, of every file with weights in the folder."""
    theirs = case.config["config"]
    assert not theirs["shared_pos"], "UMT5 has a table of positions in each block"
    changes = {"max_distance": theirs["max_dist"], "epsilon": theirs["eps"], **changes}
    found = []
    for file in case.weight_files():
        state = torch_file.load(file)
        config, params = umt5_keys.parameters(state, **changes)
        back = umt5_keys.state_dict(params)
        assert set(back) == set(state)
        for name, array in state.items():
            assert back[name].dtype == array.dtype
            np.testing.assert_array_equal(back[name], array, name)
        found.append(jax.tree.map(lambda a: np.asarray(a, np.float32), params))
    jax.tree.map(np.testing.assert_array_equal, *[found[0], found[-1]])
    names = {"vocabulary": "vocab_size", "width": "dim", "attention_width": "dim_attn",
             "hidden": "dim_ffn", "heads": "num_heads", "layers": "num_layers",
             "buckets": "num_buckets"}  # fmt: skip
    for ours, name in names.items():
        assert getattr(config, ours) == theirs[name], name
    return config, found[0]


def encode(config, params, ids, mask):
    """(b, n, c) of one batch."""
    blocks = (params[f"block_{i}"] for i in range(config.layers))
    return umt5.encode(config, params["embedding"], blocks, params["norm"], [(ids, mask)])[0]


def embeddings(config, params, ids, mask):
    """Zeros after each prompt."""
    states = encode(config, params, ids, mask)
    return umt5.pad_rows(umt5.prompt_rows(states, mask), ids.shape[1])


def check_encoder(case):
    config, params = load(case)
    io = case.io
    ids, mask = io["ids"], io["mask"]
    case.close(encode(config, params, ids, mask), io["hidden"], "hidden")
    case.close(embeddings(config, params, ids, mask), io["prompt_embeds"], "prompt_embeds")
    if "hidden_nomask" in io:
        few = ids[: len(io["hidden_nomask"])]
        case.close(encode(config, params, few, np.ones_like(few)), io["hidden_nomask"], "no mask")
    if "lengths" in case.config:
        np.testing.assert_array_equal(mask.sum(axis=1), case.config["lengths"])
    check_layers(case, config, params)
    check_half_precision(case, params)
    check_texts(case)
    shorter = int(mask.sum(axis=1).max())  # what is not attended to can be left out
    short = embeddings(config, params, ids[:, :shorter], mask[:, :shorter])
    case.close(short, io["prompt_embeds"][:, :shorter], "shorter")


def check_layers(case, config, params):
    x = params["embedding"][case.io["ids"]]
    for i in range(config.layers):
        x = umt5.run_block(config, params[f"block_{i}"], x, case.io["mask"].astype(bool))
        if f"layer{i}" in case.io:
            case.close(x, case.io[f"layer{i}"], f"layer{i}")
        if f"pos_bias_layer{i}" in case.io:
            bias = case.io[f"pos_bias_layer{i}"]
            buckets = umt5.relative_buckets(bias.shape[-1], config.buckets, config.max_distance)
            ours = rearrange(params[f"block_{i}"]["positions"][buckets], "n m k -> 1 k n m")
            case.close(ours, bias, f"pos_bias_layer{i}")


def check_half_precision(case, params):
    """bfloat16 weights and products, against float32."""
    for name, limit in case.config.get("bf16_tolerance", {"rms": {}})["rms"].items():
        assert name == "prompt_embeds_bf16"
        config, _ = load(case, dtype="bfloat16")
        half = jax.tree.map(lambda a: a.astype("bfloat16"), params)
        ours = embeddings(config, half, case.io["ids"], case.io["mask"])
        error = np.sqrt(np.mean(np.square(ours - case.io["prompt_embeds"])))
        assert error <= 2 * limit, f"{name}: rms {error} of {limit}"


def check_texts(case):
    """The tokenizer of the neighbouring folder, in all its ways of cleaning."""
    if "tokenizer" not in case.config:
        return
    name = case.config["tokenizer"]
    folders = [folder for folder in (case.folder / name, case.folder.parent / name)
               if folder.is_dir()]  # fmt: skip
    make = functools.partial(Tokenizer, folders[0])
    tokens = make(length=case.config["seq_len"])(case.config["texts"])
    np.testing.assert_array_equal(tokens.ids, case.io["ids"])
    np.testing.assert_array_equal(tokens.mask, case.io["mask"])
    if (folders[0] / "expected.json").is_file():
        check_expected(make, dataclasses.replace(case, folder=folders[0]).json("expected.json"))


def check_expected(make, expected):
    for example in expected["cases"]:
        cleaning = example["clean"] or "none"
        assert CLEANING[cleaning](example["text"]) == example["cleaned"]
        tokenizer = make(length=expected["seq_len"], cleaning=cleaning)
        ids, mask = tokenizer([example["text"]])
        np.testing.assert_array_equal(ids[0], example["ids"])
        assert mask.sum() == example["length"]


CHECKS = {"umt5/encoder": check_encoder}
