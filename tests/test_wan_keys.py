"""Names of the VAE and of UMT5: those of the releases, both layouts, both directions, bad files."""

import collections
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from random_params import random_like
from script import convert
from small_vae import CONFIG, parameters

from jaxvid.core import checkpoint, torch_file
from jaxvid.wan import umt5, umt5_keys, vae, vae_keys

TESTS = Path(__file__).parent
SMALL = umt5.Umt5Config(
    vocabulary=20, width=8, attention_width=12, hidden=16, heads=2, layers=2, buckets=8
)
TEXT = umt5.abstract_parameters(SMALL)


def release(system):
    return json.loads((TESTS / "goldens" / system / "release_key_map.json").read_text())["tensors"]


def test_every_tensor_of_the_released_vae():
    tensors = release("wan_vae")
    found = vae_keys.upstream_shapes(vae.VaeConfig())
    assert {name: list(a.shape) for name, a in found.items()} == {
        name: entry["shape"] for name, entry in tensors.items()
    }
    for name, entry in tensors.items():
        assert vae_keys.diffusers_name(name, blocks=2) == entry["diffusers"]
    assert vae_keys.config_of(found) == vae.VaeConfig()
    renamed = {tensors[name]["diffusers"]: array for name, array in found.items()}
    assert vae_keys.config_of(renamed) == vae.VaeConfig()


def test_every_tensor_of_the_released_text_encoder():
    tensors = release("umt5")
    found = umt5_keys.upstream_shapes(umt5.Umt5Config())
    assert {name: list(a.shape) for name, a in found.items()} == {
        name: entry["shape"] for name, entry in tensors.items()
    }
    for state in (found, {n: found[name] for name in found for n in tensors[name]["transformers"]}):
        config, params = umt5_keys.parameters(state)
        assert config == umt5.Umt5Config()
        assert params["block_23"]["fc2"]["kernel"].shape == (10240, 4096)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_both_layouts_of_the_vae():
    state = vae_keys.state_dict(parameters())
    config = vae_keys.config_of(state, mean=CONFIG.mean, std=CONFIG.std)
    assert config == CONFIG
    same(vae_keys.parameters(config, state), parameters())
    theirs = {vae_keys.diffusers_name(name, config.blocks): a for name, a in state.items()}
    assert vae_keys.config_of(theirs, mean=CONFIG.mean, std=CONFIG.std) == CONFIG
    same(vae_keys.parameters(config, theirs), parameters())


def test_both_layouts_of_the_text_encoder():
    params = random_like(TEXT)
    for state in (umt5_keys.state_dict(params), umt5_keys.transformers_state_dict(params)):
        config, found = umt5_keys.parameters(state)
        assert config == SMALL
        same(found, params)
    del state["shared.weight"]  # the last is transformers', which may store either name
    same(umt5_keys.parameters(state)[1], params)


@pytest.mark.parametrize("model", ["wan_vae", "umt5"])
def test_scripts_convert_there_and_back(model, tmp_path):
    params, keys = (
        (parameters(), vae_keys) if model == "wan_vae" else (random_like(TEXT), umt5_keys)
    )
    dtype = "float32" if model == "wan_vae" else "bfloat16"
    state = {name: np.asarray(a, dtype) for name, a in keys.state_dict(params).items()}
    file, ours, back = tmp_path / "file.pth", tmp_path / "ours", tmp_path / "back.pth"
    torch_file.save_pt(file, collections.OrderedDict(state))
    convert(f"--model={model}", f"--source={file}", f"--output={ours}")
    assert checkpoint.read_info(ours)["model"] == model
    convert(f"--model={model}", f"--source={ours}", f"--output={back}", "--reverse")
    again = torch_file.load(back)
    assert sorted(again) == sorted(state)
    for name, array in state.items():
        assert again[name].dtype == array.dtype and again[name].tobytes() == array.tobytes()


def test_the_vae_loads_from_either_kind_of_file(tmp_path):
    file, ours = tmp_path / "vae.pth", tmp_path / "ours"
    torch_file.save_pt(file, vae_keys.revert(parameters(), {}))
    convert("--model=wan_vae", f"--source={file}", f"--output={ours}")
    config, from_file = vae_keys.load(file)
    other_config, from_folder = vae_keys.load(ours)
    assert config == other_config and config.dtype == "bfloat16"
    same(from_file, from_folder)
    same(from_file, jax.tree.map(lambda a: a.astype("bfloat16"), parameters()))
    assert vae_keys.load(ours, dtype="float32")[0].mean == (0.0,) * 3  # constants are in no file


def test_bad_files_are_one_line(tmp_path):
    def fails(message, model, tensors):
        torch_file.save_pt(tmp_path / "bad.pth", tensors)
        new = f"--output={tmp_path / 'new'}"
        with pytest.raises(ValueError, match=message) as error:
            convert(f"--model={model}", f"--source={tmp_path / 'bad.pth'}", new)
        assert "\n" not in str(error.value) and "bad.pth" in str(error.value)

    state, text = vae_keys.state_dict(parameters()), umt5_keys.state_dict(random_like(TEXT))
    fails("not a Wan2.1 VAE: no encoder.conv1.weight", "wan_vae", text)
    fails("not a UMT5 encoder: no token_embedding.weight", "umt5", state)
    fails("no rule takes 1: extra", "wan_vae", {**state, "extra": np.ones(2)})
    fails("no rule takes 1: extra", "umt5", {**text, "extra": np.ones(2)})
    missing = {n: a for n, a in state.items() if n != "decoder.head.2.bias"}
    fails("nothing fills 1: decoder/conv_out/bias", "wan_vae", missing)
    missing = {n: a for n, a in text.items() if n != "blocks.1.attn.q.weight"}
    fails("nothing fills 1: block_1/q/kernel", "umt5", missing)
    fails("first block lacks 'block_0'", "umt5", {"token_embedding.weight": np.ones((2, 2))})
    fails("not a state dict", "wan_vae", [np.ones(2)])
    fails("not a state dict", "umt5", [np.ones(2)])
    wrong = {**state, "decoder.conv1.weight": np.ones((9, 3, 3, 3, 3), np.float32)}
    fails("other shapes 1: decoder/conv_in/kernel", "wan_vae", wrong)
    with pytest.raises(ValueError, match="is a checkpoint of 'fdm'"):
        checkpoint.save(tmp_path / "fdm", {"x": 1}, {"model": "fdm"})
        vae_keys.load(tmp_path / "fdm")
    with pytest.raises(ValueError, match="there is no checkpoint"):
        vae_keys.load(tmp_path / "nowhere")
