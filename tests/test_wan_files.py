"""Files of the Wan transformer: both layouts, containers and adapters, there and back; errors."""

import json

import jax
import numpy as np
import pytest
from einops import rearrange
from random_params import random_like
from script import convert

from jaxvid.core import checkpoint, torch_file
from jaxvid.core.convert import to_theirs
from jaxvid.wan import dit_files, dit_keys
from jaxvid.wan.dit import WanConfig, abstract_parameters
from jaxvid.wan.lora import LoraConfig, abstract_adapters, initial_adapters, merge

TINY = WanConfig(
    depth=2, width=16, heads=2, mlp=24, channels=4, text_width=8, text_length=5, frequencies=8
)
SETTINGS = {"num_heads": 2, "text_len": 5}


@pytest.fixture(scope="module")
def params():
    return random_like(abstract_parameters(TINY))


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(SETTINGS))
    return path


def tensors(params, layout="original", prefix=""):
    theirs = to_theirs(params, dit_keys.LAYOUTS[layout])
    return {prefix + name: np.ascontiguousarray(a) for name, a in theirs.items()}


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_both_layouts_there_and_back(params, settings, tmp_path, layout):
    theirs = tensors(params, layout)
    source, ours, back = tmp_path / "wan.pt", tmp_path / "ours", tmp_path / "back.pt"
    torch_file.save_pt(source, theirs)
    convert("--model=wan_dit", "--source", source, settings, "--output", ours)
    same(checkpoint.restore(ours), params)
    convert("--model=wan_dit", "--source", ours, "--output", back, "--reverse")
    same(torch_file.load(back), theirs)


def test_training_checkpoints_there_and_back(params, settings, tmp_path):
    other = random_like(abstract_parameters(TINY), 1)
    wrapped = "model._fsdp_wrapped_module."
    content = {
        "generator": tensors(params, prefix="model."),
        "generator_ema": tensors(other, prefix=wrapped),
        "critic": tensors(other, prefix="model."),
        "step": 7,
    }
    source = tmp_path / "model.pt"
    torch_file.save_pt(source, content)
    for names, wanted in ((dit_files.GENERATOR, params), (dit_files.EMA, other)):
        found, info = dit_files.convert([source, settings], names)
        same(found, wanted)
        same(dit_files.revert(found, info), {names[0]: content[names[0]]})
    same(dit_files.convert([source, settings], dit_files.CRITIC)[0], other)


def test_adapters_are_merged_or_kept(params, settings, tmp_path):
    lora = random_like(abstract_adapters(params, LoraConfig(rank=3)))
    base, file = tmp_path / "base.pt", tmp_path / "lora.pt"
    torch_file.save_pt(base, {"model": tensors(params, prefix="model.")})
    torch_file.save_pt(file, {**dit_files.write_adapters(lora), "step": 1})
    found, info = dit_files.convert_lora([base, file, settings])
    same(found, lora)
    assert info["lora"] == {"rank": 3, "alpha": 3.0}
    same(dit_files.revert_lora(found, info), {
        "generator_lora": torch_file.load(file)["generator_lora"]})  # fmt: skip
    adapter = tmp_path / "adapter_config.json"
    adapter.write_text(json.dumps({"r": 3, "lora_alpha": 6}))
    merged, info = dit_files.convert([base, file, settings, adapter])
    assert info["merged_lora"] == {"rank": 3, "alpha": 6.0}
    for layer in range(TINY.depth):
        a, b = (lora["blocks"]["self_attn"]["q"][name][layer] for name in "ab")
        wanted = params["blocks"]["self_attn"]["q"]["kernel"][layer] + 2 * a @ b
        np.testing.assert_allclose(
            merged["blocks"]["self_attn"]["q"]["kernel"][layer], wanted, atol=1e-5
        )
    adapter.write_text(json.dumps({"r": 4, "lora_alpha": 4}))
    with pytest.raises(ValueError, match="has rank 3, not 4"):
        dit_files.convert([base, file, settings, adapter])


def test_fresh_adapters_change_nothing(params):
    lora = initial_adapters(params, LoraConfig(rank=2), jax.random.key(0))
    same(merge(params, lora, 1.0), params)
    targets = {"q", "k", "v", "o"}
    assert set(lora["blocks"]["cross_attn"]) == set(lora["blocks"]["self_attn"]) == targets
    assert set(lora) == {"blocks"} and {"ffn_in", "ffn_out"} < set(lora["blocks"])


def test_release_names_and_sizes():
    """825 tensors of the 1.3B release, 600 of its LoRA, counts of the spec."""
    abstract = abstract_parameters(WanConfig())
    layers = [leaf.shape[0] if "blocks" in str(path) else 1
              for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)]  # fmt: skip
    assert sum(layers) == 825
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract)) == 1_418_996_800
    lora = abstract_adapters(abstract, LoraConfig())
    assert sum(leaf.shape[0] for leaf in jax.tree.leaves(lora)) == 600
    assert sum(leaf.size for leaf in jax.tree.leaves(lora)) == 349_962_240


def test_errors_are_one_line(params, settings, tmp_path):
    path = tmp_path / "wan.pt"

    def message(content, *more):
        torch_file.save_pt(path, content)
        with pytest.raises(ValueError) as error:
            dit_files.convert([path, settings, *more])
        assert "\n" not in str(error.value)
        return str(error.value)

    good = tensors(params)
    assert "nothing fills 1: head/out/bias" in message(
        {name: a for name, a in good.items() if name != "head.head.bias"}
    )
    assert "no rule takes 1: extra" in message(good | {"extra": good["head.head.bias"]})
    assert "not a Wan transformer" in message({"a": good["head.head.bias"]})
    assert "but not generator or model" in message({"step": 3, "generator_ema": good})
    lora = tmp_path / "lora.pt"
    other = random_like(abstract_adapters(abstract_parameters(WanConfig(
        **{**vars(TINY), "mlp": 8})), LoraConfig(2)))  # fmt: skip
    torch_file.save_pt(lora, dit_files.write_adapters(other))
    assert "other shapes" in message(good, lora)
    settings.write_text("{}")
    assert "give its config.json" in message(good)


def test_patch_kernel_is_a_convolution(params):
    """Tokens equal torch's convolution with kernel and stride of one patch."""
    from jaxvid.wan.embeddings import PatchEmbedding

    x = np.random.default_rng(0).normal(size=(1, 2, 4, 6, 4)).astype(np.float32)
    ours = PatchEmbedding(16, (1, 2, 2), np.float32).apply({"params": params["patch_embedding"]}, x)
    kernel = tensors(params)["patch_embedding.weight"]
    patches = rearrange(x, "b t (h p) (w q) c -> b (t h w) c p q", p=2, q=2)
    wanted = np.einsum("bncpq,dcpq->bnd", patches, kernel[:, :, 0])
    np.testing.assert_allclose(ours - params["patch_embedding"]["bias"], wanted, atol=1e-5)
