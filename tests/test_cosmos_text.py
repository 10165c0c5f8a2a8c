"""Cosmos' prompts to embeddings: tokens, files of the encoder, what is given."""

import functools
import json
import re
import runpy
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxvid.core import torch_file
from jaxvid.cosmos import prompts, text, text_keys, tokens
from jaxvid.cosmos.prompts import PromptConfig, prompt_settings
from jaxvid.cosmos.text import TextConfig

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "data" / "tokenizer_qwen"
CONFIG = TextConfig(vocabulary=330, width=16, hidden=24, heads=4, key_heads=2, layers=3)
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)  # order of sums
PROMPTS = ["Rain on a wide road at night.", " ", "Rain on a wide road at night."]


@functools.cache
def parameters():
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda a: random.normal(size=a.shape).astype(np.float32) / a.shape[0] ** 0.5,
        text.abstract_parameters(CONFIG),
    )


def expected(texts, config=CONFIG):
    params = parameters()
    blocks = [params[f"block_{i}"] for i in range(config.layers)]
    ids = tokens.Tokenizer(TOKENIZER)(texts)
    return text.embeddings(config, params["embedding"], blocks, params["norm"], ids)


@pytest.fixture
def release(tmp_path):
    """A folder as downloaded: two shards, an index, config.json, the tokenizer, and pictures."""
    folder = tmp_path / "Cosmos-Reason1-7B"
    folder.mkdir()
    state = text_keys.state_dict(parameters())
    state = {name: np.ascontiguousarray(a) for name, a in state.items()}
    state |= {"visual.patch_embed.weight": np.zeros((3, 2), np.float32)}
    state |= {"lm_head.weight": np.zeros((330, 16), np.float32)}
    shards = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(state)}
    for shard in set(shards.values()):
        save_file({n: state[n] for n, file in shards.items() if file == shard}, folder / shard)
    index = json.dumps({"weight_map": shards})
    (folder / "model.safetensors.index.json").write_text(index)
    settings = {"model_type": "qwen2_5_vl", "num_attention_heads": 4, "rope_theta": 1e6}
    (folder / "config.json").write_text(json.dumps(settings))
    shutil.copy(TOKENIZER / "tokenizer.json", folder)
    return folder


def settings_of(release, **changes):
    fields = {"encoder": str(release), "embeddings": "", "dtype": "float32", **changes}
    return prompt_settings(PromptConfig(**fields))


def one_line(message, function, *arguments, **settings):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        function(*arguments, **settings)
    assert "\n" not in str(error.value)


def test_tokens_are_the_chat_padded_on_the_right():
    tokenizer = tokens.Tokenizer(TOKENIZER)
    ids = tokenizer(["A car.", " ", "night " * 900])
    assert ids.shape == (3, 512) and ids.dtype == np.int32
    inner = tokenizer._tokenizer
    start, end = inner.token_to_id("<|im_start|>"), inner.token_to_id("<|im_end|>")
    for row in ids[:2]:
        length = (row != tokenizer.padding_id).sum()
        assert (row[length:] == tokenizer.padding_id).all()
        assert row[0] == start and (row == start).sum() == 2
        assert (row == end).sum() == 2 and row[length - 2] == end  # a line break comes after
    text = inner.decode(ids[0], skip_special_tokens=False).split("<|endoftext|>")[0]
    assert (
        text
        == tokens.rendered("A car.")
        == (
            "<|im_start|>system\nYou are a helpful assistant who will provide prompts to an image "
            "generator.<|im_end|>\n<|im_start|>user\nA car.<|im_end|>\n"
        )
    )
    assert (ids[2] != tokenizer.padding_id).all() and (ids[2] == end).sum() == 1


def test_what_is_cut_is_told():
    tokenizer = tokens.Tokenizer(TOKENIZER)
    prompt = " ".join(f"word{i}" for i in range(300))
    end = tokenizer.cut(prompt)
    assert tokenizer.cut("A car.") == "" and prompt.endswith(end)
    kept = prompt.removesuffix(end)
    assert (tokenizer([kept])[0, -3:] == tokenizer([prompt])[0, -3:]).all()
    settings = prompt_settings(PromptConfig(random=True, tokenizer=str(TOKENIZER)), CONFIG)
    (note,) = prompts.cut_notes(settings, [prompt, "A car.", prompt])
    assert end in note and "512" in note


def test_vocabulary_and_merges_equal_the_tokenizer_json(tmp_path):
    content = json.loads((TOKENIZER / "tokenizer.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair)
              for pair in content["model"]["merges"]]  # fmt: skip
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    texts = ["Größe 12 km/h, it's\n\n a Straße  …  ", " ", "cafe\u0301 <|im_end|> 世界"]
    whole = tokens.Tokenizer(TOKENIZER)(texts)
    np.testing.assert_array_equal(tokens.Tokenizer(tmp_path)(texts), whole)
    added = {entry["id"]: {"content": entry["content"]} for entry in content["added_tokens"]}
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"added_tokens_decoder": added}))
    np.testing.assert_array_equal(tokens.Tokenizer(tmp_path)(texts), whole)
    config.write_text(json.dumps({"added_tokens_decoder": {"5": {"content": "<|im_end|>"}}}))
    one_line("gives <|im_end|> the number 5", tokens.Tokenizer, tmp_path)
    one_line("is no tokenizer of Qwen2", tokens.Tokenizer, ROOT / "data" / "tokenizer")
    one_line("there is no tokenizer", tokens.Tokenizer, tmp_path / "nothing")


def test_the_encoder_reads_a_release_and_our_checkpoint(release, tmp_path):
    config = settings_of(release).network
    assert config == CONFIG
    wanted = expected(PROMPTS[:2])
    for ours, theirs in zip(encode(settings_of(release)), wanted, strict=True):
        close(ours, theirs)
    script = runpy.run_path(str(ROOT / "scripts" / "convert.py"))
    index = str(release / "model.safetensors.index.json")
    output = tmp_path / "converted"
    assert script["main"](["--model=cosmos_text", "--source", index, "--output", str(output)]) == 0
    converted = settings_of(output, tokenizer=str(TOKENIZER))
    assert converted.network == CONFIG
    for ours, theirs in zip(encode(converted), wanted, strict=True):
        close(ours, theirs)
    back = tmp_path / "back.pt"
    arguments = ["--model=cosmos_text", "--source", str(output), "--output", str(back)]
    script["main"]([*arguments, "--reverse"])
    state = text_keys.state_dict(parameters())
    theirs = torch_file.load(back)
    assert set(theirs) == set(state)
    jax.tree.map(np.testing.assert_array_equal, dict(theirs), state)


def encode(settings):
    found = dict(prompts.embeddings(settings, PROMPTS))
    assert list(found) == PROMPTS[:2]
    return list(found.values())


def test_newer_names_are_the_same_model():
    state = text_keys.state_dict(parameters())
    for prefix in ("model.language_model.", "language_model.model."):
        renamed = {name.replace("model.", prefix, 1): a for name, a in state.items()}
        renamed["model.visual.x"] = np.zeros(2)
        config, params = text_keys.parameters(renamed, heads=4)
        assert config == CONFIG
        jax.tree.map(np.testing.assert_array_equal, params, parameters())


def test_half_precision(release):
    half = encode(settings_of(release, dtype="bfloat16"))
    assert all(array.dtype == "bfloat16" and array.shape == (512, 48) for array in half)
    error = np.stack(half).astype(np.float32) - expected(PROMPTS[:2])
    assert np.sqrt(np.mean(np.square(error))) < 0.05  # of channels with spread 1


def test_later_tokens_change_nothing_before_them_but_padding_counts():
    ids = np.array([[5, 6, 7, 8, 9]])
    params = parameters()
    blocks = [params[f"block_{i}"] for i in range(CONFIG.layers)]
    run = functools.partial(text.embeddings, CONFIG, params["embedding"], blocks, params["norm"])
    one, other = run(ids), run(ids + np.array([0, 0, 0, 100, 0]))
    close(one[:, :3], other[:, :3])
    assert np.abs(one[:, 3:] - other[:, 3:]).max(axis=(0, 2)).min() > 0.01


def test_layers_are_read_once_for_a_pass(release, monkeypatch):
    calls = []
    original = prompts.encode
    monkeypatch.setattr(
        prompts, "encode", lambda s, ids: calls.append(len(ids)) or original(s, ids)
    )
    monkeypatch.setattr(prompts, "PASS", 2)
    found = dict(prompts.embeddings(settings_of(release), [*PROMPTS, "a"]))
    assert calls == [2, 1] and list(found) == [*PROMPTS[:2], "a"]


def test_sources_tell_embeddings_apart(release):
    """Encoders, their types and tokens; what is cut off does not count."""
    long = "night " * 900
    settings = settings_of(release)
    found = prompts.sources(settings, [*PROMPTS, long, long + "rain"])
    assert list(found) == [*PROMPTS[:2], long, long + "rain"]
    assert found[long] == found[long + "rain"] and found[" "] != found[PROMPTS[0]]
    half = prompts.sources(settings_of(release, dtype="bfloat16"), [" "])
    (release / "model-0.safetensors").touch()
    other = prompts.sources(settings, [" "])
    assert len({str(kept[" "]) for kept in (found, half, other)}) == 3


def test_precomputed_embeddings_need_no_encoder(tmp_path):
    random = np.random.default_rng(0)
    arrays = [random.normal(size=(512, 6)).astype(np.float32) for _ in range(3)]
    np.savez(tmp_path / "one.npz", **{"a road/at night?": arrays[0]})
    save_file({" ": arrays[1][None]}, tmp_path / "two.safetensors")
    torch_file.save_pt(tmp_path / "three.pt", {"ugly": arrays[2], "flat": arrays[2][0]})
    names = ("one.npz", "two.safetensors", "three.pt")
    files = tuple(str(tmp_path / name) for name in names)
    settings = prompt_settings(PromptConfig(precomputed=files, encoder="", dtype="float32"))
    found = dict(prompts.embeddings(settings, ["a road/at night?", " ", "ugly"]))
    for ours, given in zip(found.values(), arrays, strict=True):
        np.testing.assert_array_equal(ours, given)
    one_line("no embedding of 'else'", prompts.sources, settings, ["else"])
    flat = prompts.embeddings(settings, ["flat"])
    one_line("has shape (6,), not (512, 6)", next, flat)
    one_line("a prompt is empty", prompts.sources, settings, ["", " "])


def test_wrong_files_are_one_line(release, tmp_path):
    one_line("there is no such folder", settings_of, tmp_path / "none")
    one_line("give one of them", settings_of, "")
    one_line("no such file", settings_of, release, precomputed=("x.npz",))
    (tmp_path / "x.npz").write_bytes(b"PK no zip")
    bad = settings_of(release, precomputed=(str(tmp_path / "x.npz"),))
    one_line("is no .npz file", prompts.sources, bad, ["a"])
    (release / "config.json").write_text(json.dumps({"model_type": "llama"}))
    one_line("is not the config.json of a Qwen2.5 model", settings_of, release)
    (release / "config.json").unlink()
    small = {"model.embed_tokens.weight": np.zeros((9, 8), np.float32)}
    save_file(small, release / "model-0.safetensors")
    one_line("model-0.safetensors", settings_of, release / "model-0.safetensors")
    one_line("needs text.tokenizer", PromptConfig, random=True)
