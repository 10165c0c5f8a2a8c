"""What each update of LongLive's training takes: chunks of the stream, prompts, videos."""

import dataclasses

import jax
import numpy as np
import pytest
from small_longlive_train import config_of, write

from jaxvid.core.mesh import make_mesh
from jaxvid.core.video import VideoWriter
from jaxvid.longlive import stream, train_data
from jaxvid.longlive.stream import Position
from jaxvid.longlive.train_config import DataConfig, TrainConfig
from jaxvid.longlive.train_prompts import Order, Texts, read_prompts
from jaxvid.longlive.train_setup import training_setup
from jaxvid.longlive.train_videos import Videos

pytestmark = pytest.mark.usefixtures("at_root")


def test_stream_of_the_published_settings():
    """237 of 240 frames: 21, then 12 times 18; prompts change where a chunk starts."""
    config = TrainConfig("streaming", lora_rank=256, ema=0.0)
    position, chunks = Position(), []
    for _ in range(26):
        chunks.append(stream.next_chunk(config, 3, position))
        position = chunks[-1].end
    assert [chunk.start for chunk in chunks[:13]] == [0, *range(21, 220, 18)]
    assert [chunk.frames for chunk in chunks[:13]] == [21] + [18] * 12
    assert [chunk.video for chunk in chunks] == [0] * 13 + [1] * 13
    for video in (0, 1):
        switch = stream.switch_frame(config, video)
        for chunk in chunks[13 * video : 13 * video + 13]:
            assert chunk.switch_block == (0 if chunk.start == switch else None)
            assert chunk.prompt == int(chunk.start >= switch)


def test_turns_of_an_update():
    """The generator learns in every fifth update, a chunk before the critic's."""
    config = TrainConfig("streaming", lora_rank=256, ema=0.0)
    first = stream.plan(config, 3, 0, Position())
    assert [(who, chunk.start) for who, chunk in first] == [("generator", 0), ("critic", 21)]
    second = stream.plan(config, 3, 1, first[-1][1].end)
    assert [(who, chunk.start) for who, chunk in second] == [("critic", 39)]
    skipped = dataclasses.replace(config, train_first_chunk=False)
    turns = stream.plan(skipped, 3, 1, Position())
    assert [(who, chunk.start) for who, chunk in turns] == [("nobody", 0), ("critic", 21)]
    dmd = stream.plan(TrainConfig(), 3, 5, Position(4, 21))
    assert [(who, chunk.video) for who, chunk in dmd] == [("generator", 5), ("critic", 5)]


def test_a_switch_within_a_chunk_takes_effect_at_the_next_block():
    sizes = {"frames": 6, "new_frames": 6, "max_frames": 18, "switch_frames": (7,)}
    config = TrainConfig("streaming", image_first=False, **sizes)
    chunks = [stream.next_chunk(config, 3, Position(0, start)) for start in (6, 12)]
    assert [(chunk.switch_block, chunk.prompt) for chunk in chunks] == [(1, 1), (None, 1)]


def test_every_prompt_comes_once_an_epoch_even_with_large_batches():
    order = Order(items=3, batch_size=5, seed=1)
    found = [order(batch, row) for batch in range(3) for row in range(5)]
    for epoch in range(5):
        assert sorted(found[3 * epoch : 3 * epoch + 3]) == [0, 1, 2]
    assert found == [Order(3, 5, 1)(batch, row) for batch in range(3) for row in range(5)]


def test_prompts_are_embedded_ahead_and_dropped():
    calls = []

    def embed(prompts):
        calls.append(list(prompts))
        return {prompt: np.full((2, 3), len(prompt), np.float32) for prompt in prompts}

    texts = Texts(embed, length=4, ahead=4)
    texts.keep(["bad"])
    upcoming = lambda n: [["a", "bb"], ["c", "dd"], ["eee", "f"]][n]  # noqa: E731
    rows = texts(["a", "bb"], upcoming)
    assert rows.shape == (2, 4, 3) and rows[1, 1, 0] == 2 and not rows[:, 2:].any()
    texts(["c", "dd"], lambda n: [["c", "dd"], ["eee", "f"]][n])
    texts(["eee", "f"], lambda n: [["eee", "f"], ["a", "bb"]][n])
    assert calls == [["bad", "a", "bb", "c", "dd"], ["eee", "f"]]
    assert set(texts.known) == {"bad", "eee", "f", "a", "bb"}


def test_texts_of_sample_videos_do_not_drop_those_ahead(tmp_path, monkeypatch):
    calls = []

    def embed(setup, prompts):
        calls.append(prompts)
        return {prompt: np.zeros((2, 32), np.float32) for prompt in prompts}

    monkeypatch.setattr(train_data, "embed", embed)
    setup = training_setup(config_of("dmd", tmp_path, "train.sample_every=1"))
    source = train_data.PromptList([(f"prompt {i}",) for i in range(50)], "here")
    feed = train_data.Feed(setup, source, make_mesh(setup.mesh, jax.devices()[:1]))
    for step in range(4):
        feed(step, Position())
        assert feed.shown_texts().shape == (1, 128, 32)
    assert len(calls) == 1 and {"blurred", "prompt 0"} < set(calls[0])


def test_videos_of_another_rate_are_told(tmp_path):
    for fps in (16, 30):
        with VideoWriter(tmp_path / f"{fps}.mp4", fps=fps) as writer:
            writer.write(np.zeros((5, 16, 16, 3), np.uint8))
        write(tmp_path / f"{fps}.txt", "a caption")
    setup = training_setup(config_of("flow_matching", tmp_path / "run", "train.frames=2"))
    data = dataclasses.replace(setup.data, videos=str(tmp_path))
    text = Videos(dataclasses.replace(setup, data=data)).describe()
    assert "from 2 videos, 1 of which have 30 to 30 frames per second" in text


def test_prompt_lists(tmp_path):
    first = write(tmp_path / "first.txt", "a\nb\n")
    second = write(tmp_path / "second.txt", "c\nd\n")
    rows = write(tmp_path / "rows.jsonl", '{"prompts": ["a", "c"]}\n{"prompts": ["b", "d", "e"]}\n')
    wanted = [("a", "c"), ("b", "d")]
    assert read_prompts(DataConfig(first, second), pairs=True) == wanted
    found = read_prompts(DataConfig(rows), pairs=True)
    assert train_data.PromptList(found, "rows", 2).rows == wanted
    assert train_data.PromptList(found, "rows").rows == [("a",), ("b",)]
    assert "1 rows have more prompts, of" in train_data.PromptList(found, "rows", 2).describe()
    bad = {
        "": ("", "is empty"),
        "x.txt": ("a\n\nb\n", "line 2: the prompt is empty"),
        "y.jsonl": ('{"prompts": []}\n', "line 1: the prompt is empty"),
        "z.jsonl": ("{\n", "line 1: no JSON"),
        "e.txt": ("", "is empty: give at least one line"),
        "one.jsonl": ('{"prompts": ["a"]}\n', "row 1 has one prompt"),
    }
    for name, (text, message) in bad.items():
        path = write(tmp_path / name, text) if name else ""
        with pytest.raises(ValueError, match=message):
            read_prompts(DataConfig(path), pairs=True)
    with pytest.raises(ValueError, match=r"switch_prompts has 1 lines, data\.prompts 2"):
        short = write(tmp_path / "short.txt", "c\n")
        read_prompts(DataConfig(first, short), pairs=True)
