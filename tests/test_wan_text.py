"""Prompts to embeddings: tokens, buckets, batches, files read block by block, the cache."""

import functools
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvid.core import checkpoint, torch_file
from jaxvid.wan import prompts, umt5, umt5_keys
from jaxvid.wan.tokenizer import CLEANING, Tokenizer, Tokens

TOKENIZER = Path(__file__).parent / "goldens" / "umt5" / "tokenizer_tiny"
CONFIG = umt5.Umt5Config(
    vocabulary=160, width=8, attention_width=12, hidden=16, heads=2, layers=3, dtype="float32"
)
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)  # order of sums
PROMPTS = ["A cat walks down the street.", "", "Rain", "A cat walks down the street."]


@functools.cache
def parameters():
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda a: random.normal(size=a.shape).astype(np.float32) / a.shape[0] ** 0.5,
        umt5.abstract_parameters(CONFIG),
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "umt5.pth"
    torch_file.save_pt(path, umt5_keys.revert(parameters(), {}))
    return path


def one_line(message, function, *arguments, **settings):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        function(*arguments, **settings)
    assert "\n" not in str(error.value)


def test_buckets_of_the_release():
    """The ranges of the 16 buckets of keys before the query; those after it follow."""
    ends = [*range(8), 8, 12, 16, 23, 32, 46, 64, 91]
    starts = {start: bucket for bucket, start in enumerate(ends)}
    table = umt5.relative_buckets(300, buckets=32, max_distance=128)
    bucket = 0
    for distance in range(300):
        bucket = starts.get(distance, bucket)
        assert table[299, 299 - distance] == bucket
        if distance:
            assert table[0, distance] == bucket + 16


def run(tokens: Tokens):
    params = parameters()
    blocks = [params[f"block_{i}"] for i in range(CONFIG.layers)]
    (states,) = umt5.encode(CONFIG, params["embedding"], blocks, params["norm"], [tokens])
    return umt5.prompt_rows(states, tokens.mask)


def test_padding_and_neighbours_change_nothing():
    tokens = Tokenizer(TOKENIZER, length=40)(PROMPTS)
    together = run(tokens)
    for i, length in enumerate(tokens.mask.sum(axis=1)):
        alone = run(Tokens(*(a[i : i + 1, :length] for a in tokens)))[0]
        close(together[i], alone)
    padded = umt5.pad_rows(together, 40)
    assert padded.shape == (4, 40, 8) and not padded[1, 1:].any()


@pytest.mark.parametrize("folder", [False, True])
def test_an_encoder_reads_its_blocks_from_disk(folder, file, tmp_path, monkeypatch):
    path = file
    if folder:
        path = tmp_path / "ours"
        params, info = umt5_keys.convert([file])
        checkpoint.save(path, params, {"model": "umt5", **info})
    encoder = prompts.load_encoder(path, "float32")
    assert encoder.config == CONFIG
    monkeypatch.setattr(prompts, "BATCH", 2)
    monkeypatch.setattr(prompts, "PASS", 3)
    monkeypatch.setattr(prompts, "LENGTHS", (4, 16))
    tokens = Tokenizer(TOKENIZER, length=40)(PROMPTS)
    for ours, expected in zip(encoder.encode(tokens), run(tokens), strict=True):
        close(ours, expected)


def test_half_precision(file):
    tokens = Tokenizer(TOKENIZER, length=40)(PROMPTS)
    half = list(prompts.load_encoder(file).encode(tokens))
    assert half[0].dtype == "bfloat16"  # which halves the files that keep them
    whole = run(tokens)
    error = np.concatenate(half) - np.concatenate(whole)
    assert np.sqrt(np.mean(np.square(error))) < 0.03  # of rows of unit scale


def test_embeddings_are_kept(file, tmp_path, monkeypatch):
    tokenizer, encoder = Tokenizer(TOKENIZER, length=40), prompts.load_encoder(file, "float32")
    embed = functools.partial(prompts.embed_prompts, tokenizer=tokenizer, folder=tmp_path / "cache")
    first = embed(PROMPTS, encoder=encoder)
    assert len(first) == 3
    stored = sorted((tmp_path / "cache").iterdir())
    assert len(stored) == 3

    encoded = []
    original = prompts.TextEncoder.encode
    monkeypatch.setattr(
        prompts.TextEncoder,
        "encode",
        lambda self, tokens: encoded.append(len(tokens.ids)) or original(self, tokens),
    )
    again = embed(PROMPTS, encoder=encoder)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert encoded == []
    stored[0].write_bytes(stored[0].read_bytes()[:-5])  # damaged
    embed([*PROMPTS, "a dog"], encoder=encoder)
    assert encoded == [2]
    embed(PROMPTS, encoder=prompts.load_encoder(file, "bfloat16"))
    assert encoded == [2, 3]
    close(embed(["Rain"], encoder=encoder)["Rain"], first["Rain"])


def test_a_pass_is_kept_before_the_next_one(file, tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "PASS", 2)
    original = prompts.TextEncoder._encode_pass
    kept = []

    def counted(self, *arguments):
        kept.append(len(list(tmp_path.glob("*.npy"))))
        return original(self, *arguments)

    monkeypatch.setattr(prompts.TextEncoder, "_encode_pass", counted)
    encoder = prompts.load_encoder(file, "float32")
    prompts.embed_prompts(PROMPTS, Tokenizer(TOKENIZER, length=40), encoder, tmp_path)
    assert kept == [0, 2]


def test_long_prompts_say_what_is_cut():
    tokenizer = Tokenizer(TOKENIZER, length=12)
    assert tokenizer.cut("A cat") == ""
    text = "A cat walks down the street filled with rain"
    kept = text[: -len(tokenizer.cut(text))]
    assert kept and text.startswith(kept) and tokenizer.cut(text).endswith("rain")
    assert tokenizer.cut(kept) == ""
    ids, mask = tokenizer([text])
    assert ids.shape == (1, 12) and mask.sum() == 12 and ids[0, -1] == 1  # the end token


def test_cleaning():
    text = "  It\u2019s &amp;lt;here&amp;gt;,\u00a0a_cat \n"
    assert CLEANING["whitespace"](text) == "It's <here>, a_cat"
    assert CLEANING["lower"](text) == "it's <here>, a_cat"
    assert CLEANING["canonicalize"](text) == "its here a cat"
    assert CLEANING["none"](text) == text


def test_bad_input_is_one_line(file, tmp_path):
    one_line("there is no tokenizer", Tokenizer, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    one_line("is not a tokenizer.json", Tokenizer, tmp_path)
    one_line("cleaning='best' is not one of", Tokenizer, TOKENIZER, cleaning="best")
    one_line("length=1 leaves no room", Tokenizer, TOKENIZER, length=1)
    one_line("there is no checkpoint", prompts.load_encoder, tmp_path / "nowhere")
    checkpoint.save(tmp_path / "other", {"x": 1}, {"model": "wan_vae"})
    one_line("checkpoint of 'wan_vae', not of 'umt5'", prompts.load_encoder, tmp_path / "other")
    one_line("is not a multiple of heads", umt5.Umt5Config, heads=7)
    one_line("must be a multiple of 4", umt5.Umt5Config, buckets=6)
