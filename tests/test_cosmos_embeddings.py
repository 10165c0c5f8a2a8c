"""Embeddings of many prompts: kept on disk, read one at a time."""

import resource

import numpy as np
import pytest
import small_multiview as small

from jaxvid.core.array_cache import ArrayCache
from jaxvid.core.files import disk_full
from jaxvid.cosmos import generate, prompts
from jaxvid.cosmos.mode import CosmosMode
from jaxvid.runs.requests import Request


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Of an encoder whose embeddings are all one number, the sum of its tokens."""

    def encode(settings, ids):
        shape = (len(ids), prompts.TOKENS, settings.embedding_width)
        return np.broadcast_to(ids.sum(1)[:, None, None], shape).astype(np.float32)

    monkeypatch.setattr(prompts, "encode", encode)
    changes = {"sampling__specs": "('none.json',)", "text__embeddings": str(tmp_path / "kept")}
    return CosmosMode(small.config(**changes)).settings


def test_many_prompts_need_few_open_files(settings):
    texts = [f"{number} roads" for number in range(200)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, limits[1]))
    try:
        made = prompts.text_embeddings(settings.text, texts)
        kept = prompts.text_embeddings(settings.text, texts)
        held = [(kept[text] == made[text]).all() for text in texts]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert all(held) and len({float(kept[text][0, 0]) for text in texts}) > 5


def test_only_prompts_of_the_requests_are_embedded(settings, monkeypatch):
    asked = []
    monkeypatch.setattr(generate, "text_embeddings", lambda _, texts: asked.extend(texts))
    monkeypatch.setattr(generate, "Generator", lambda *_: None)
    generate.load(settings, [Request("a", 0, {}, options={"prompt": "A road."})])
    assert asked == ["A road.", generate.conditions.EMPTY, generate.conditions.NEGATIVE]


def test_an_embedding_that_went_away_is_one_line(settings, tmp_path):
    found = prompts.text_embeddings(settings.text, ["a", "b"])
    for path in (tmp_path / "kept").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"no longer in text\.embeddings="):
        found["a"]


def test_a_full_disk_of_the_cache_is_named(tmp_path, monkeypatch):
    def short(path, array):
        raise OSError("4096 requested and 17 written")

    monkeypatch.setattr(np, "save", short)
    with pytest.raises(OSError) as error:
        ArrayCache(tmp_path / "kept").write("key", np.zeros(3))
    assert disk_full(error.value) and error.value.filename == str(tmp_path / "kept")
