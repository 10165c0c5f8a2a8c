"""Words of many prompts: projected, kept on disk, read one at a time."""

import dataclasses
import resource

import jax
import numpy as np
import pytest
import small_multiview as small

from jaxvid.core import checkpoint, torch_file
from jaxvid.core.array_cache import ArrayCache
from jaxvid.core.files import disk_full
from jaxvid.core.random_tree import draw
from jaxvid.cosmos import files, generate, model, networks, programs, prompts
from jaxvid.cosmos.mode import CosmosMode
from jaxvid.cosmos.words import NOTHING, Words
from jaxvid.runs.requests import Request

ROADS = [f"{number} roads" for number in range(5)]


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Of an encoder whose embeddings are all one number, the sum of its tokens."""

    def encode(settings, ids):
        shape = (len(ids), prompts.TOKENS, settings.embedding_width)
        return np.broadcast_to(ids.sum(1)[:, None, None], shape).astype(np.float32)

    monkeypatch.setattr(prompts, "encode", encode)
    changes = {"sampling__specs": "('none.json',)", "text__embeddings": str(tmp_path / "kept")}
    return CosmosMode(small.config(**changes)).settings


def words_of(settings, texts, **changes):
    """All made; changes replace what Words is given."""
    names = ("text", "models", "network")
    given = {name: getattr(settings, name) for name in names} | changes
    folder = given.pop("folder", settings.text.config.embeddings)
    found = Words(**given, texts=texts, folder=folder)
    found.make(found.missing(texts))
    return found


def never(*_):
    raise AssertionError("is read again")


def test_many_prompts_need_few_open_files(settings):
    texts = [f"{number} roads" for number in range(200)]
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, limits[1]))
    try:
        made, kept = words_of(settings, texts), words_of(settings, texts)
        held = [(kept[text] == made[text]).all() for text in texts]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert all(held) and len({float(kept[text].max()) for text in texts}) > 5


def test_projected_words_are_kept_and_nothing_is_read_again(settings, tmp_path, monkeypatch):
    made = words_of(settings, [*ROADS, NOTHING])
    params = draw(model.abstract_parameters(settings.network), 0, "float32")
    ids = prompts.Tokenizer(settings.text.config.tokenizer_path)(ROADS)
    for text, embedding in zip(ROADS, prompts.encode(settings.text, ids), strict=True):
        wanted = programs.text_context(settings.network, params, embedding)
        np.testing.assert_array_equal(made[text], wanted)
    assert not made[NOTHING].any()  # the bias is 0
    shapes = [np.load(path).shape for path in (tmp_path / "kept").iterdir()]
    assert sorted(shapes) == [(32,)] + [(512, 8)] * 6  # and a hash of the projection
    monkeypatch.setattr(prompts, "encode", never)
    monkeypatch.setattr(networks, "text_projection", never)
    again = words_of(settings, ROADS)
    assert all((again[text] == made[text]).all() for text in ROADS)


def test_without_a_folder_words_stay_in_memory(settings, tmp_path):
    kept, memory = words_of(settings, ROADS), words_of(settings, ROADS, folder="")
    assert list(memory) == ROADS and len(list((tmp_path / "kept").iterdir())) == 6
    assert all((memory[text] == kept[text]).all() for text in ROADS)


def test_checkpoints_with_one_projection_share_words(settings, tmp_path, monkeypatch):
    network = dataclasses.replace(settings.network, dtype="bfloat16")
    shape = dataclasses.asdict(network)
    params = draw(model.abstract_parameters(network), 0, "float32")
    trained = params | {"blocks": jax.tree.map(lambda a: a + 1, params["blocks"])}
    other = params | {"text": jax.tree.map(lambda a: a + 1, params["text"])}
    for name, tree in {"base": params, "trained": trained, "other": other}.items():
        checkpoint.save(tmp_path / name, tree, {"kind": "cosmos_multiview", "network": shape})
    torch_file.save_pt(tmp_path / "release.pt", files.revert(params, {"network": shape}))

    def words(name):
        models = dataclasses.replace(
            settings.models, random=False, transformer=str(tmp_path / name), dtype="bfloat16"
        )
        return words_of(settings, ROADS, models=models, network=network)

    first, count = words("base"), len(list((tmp_path / "kept").iterdir()))
    assert first[ROADS[0]].dtype == "bfloat16"
    with monkeypatch.context() as patch:
        patch.setattr(prompts, "encode", never)
        assert (words("trained")[ROADS[0]] == first[ROADS[0]]).all()
        assert (words("release.pt")[ROADS[0]] == first[ROADS[0]]).all()
    assert len(list((tmp_path / "kept").iterdir())) == count + 2  # a hash for each
    assert (words("other")[ROADS[0]] != first[ROADS[0]]).any()


def test_only_the_projection_is_read_of_a_file(settings, monkeypatch):
    params = draw(model.abstract_parameters(settings.network), 0, "float32")
    info = {"network": dataclasses.asdict(settings.network)}

    class Tensors(dict):
        def __getitem__(self, name):
            assert "crossattn_proj" in name
            return super().__getitem__(name)

    monkeypatch.setattr(files, "read", lambda _: Tensors(files.revert(params, info)))
    models = dataclasses.replace(settings.models, random=False, transformer="x.pt")
    found = networks.text_projection(models, settings.network)
    assert {name: (a.dtype, a.shape) for name, a in found.items()} == {
        "kernel": ("float32", (16, 8)),
        "bias": ("float32", (8,)),
    }
    narrow = dataclasses.replace(settings.network, text_in=4)
    with pytest.raises(ValueError, match=r"^x\.pt: .*text/kernel"):
        networks.text_projection(models, narrow)


def test_damaged_words_are_made_again(settings, tmp_path):
    made = {text: np.array(array) for text, array in words_of(settings, ROADS).items()}
    for path in (tmp_path / "kept").iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    again = words_of(settings, ROADS)
    assert all((again[text] == made[text]).all() for text in ROADS)


def given(settings, tmp_path, width):
    """The settings with embeddings in a file."""
    arrays = {text: np.full((512, width), i, np.float32) for i, text in enumerate(ROADS)}
    np.savez(tmp_path / "given.npz", **arrays)
    config = dataclasses.replace(settings.text.config, precomputed=(f"{tmp_path}/given.npz",))
    return dataclasses.replace(settings.text, config=config, network=None), arrays


def test_given_embeddings_are_projected_or_read_where_they_are(settings, tmp_path):
    text, arrays = given(settings, tmp_path, 16)
    found = words_of(settings, ROADS, text=text)
    projection = {"text": networks.text_projection(settings.models, settings.network)}
    wanted = programs.text_context(settings.network, projection, arrays[ROADS[3]])
    np.testing.assert_array_equal(found[ROADS[3]], wanted)
    plain = dataclasses.replace(settings.network, text_in=0, text_width=16)
    count = len(list((tmp_path / "kept").iterdir()))
    found = words_of(settings, ROADS, text=text, network=plain)
    np.testing.assert_array_equal(found[ROADS[3]], arrays[ROADS[3]])
    assert len(list((tmp_path / "kept").iterdir())) == count
    text, _ = given(settings, tmp_path, 20)
    with pytest.raises(ValueError, match="are 20 wide, the transformer reads 16: give those of"):
        words_of(settings, ROADS, text=text)


def test_only_prompts_of_the_requests_are_embedded(settings, monkeypatch):
    monkeypatch.setattr(generate, "Generator", lambda _, words, devices: list(words))
    made = generate.load(settings, [Request("a", 0, {}, options={"prompt": "A road."})])
    assert made == ["A road.", generate.conditions.EMPTY, generate.conditions.NEGATIVE]


def test_words_that_went_away_are_one_line(settings, tmp_path):
    found = words_of(settings, ["a", "b"])
    for path in (tmp_path / "kept").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"words of 'a' are not in .*kept: .* makes them$"):
        found["a"]


def test_a_full_disk_of_the_cache_is_named(tmp_path, monkeypatch):
    def short(path, array):
        raise OSError("4096 requested and 17 written")

    monkeypatch.setattr(np, "save", short)
    with pytest.raises(OSError) as error:
        ArrayCache(tmp_path / "kept").write("key", np.zeros(3))
    assert disk_full(error.value) and error.value.filename == str(tmp_path / "kept")
