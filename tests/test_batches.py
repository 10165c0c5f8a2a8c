"""Batches of training videos: order, resuming, several processes."""

import numpy as np
import pytest
import small_data

from jaxvid.data.batches import batches
from jaxvid.data.sources import open_source


@pytest.fixture
def config(tmp_path):
    return small_data.mazes(tmp_path)


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def test_batches_repeat_and_resume(config):
    source = open_source(config, "train")
    whole = take(batches(source, 5, seed=7), 8)
    assert whole[0].shape == (5, 4, 16, 16, 3) and whole[0].dtype == np.uint8
    resumed = take(batches(source, 5, seed=7, start_step=3, workers=0), 5)
    np.testing.assert_array_equal(np.stack(whole[3:]), np.stack(resumed))


def test_batches_differ_by_seed_and_stream(config):
    source = open_source(config, "train")
    kinds = [{}, {"seed": 1}, {"stream": 1}, {"seed": 1, "stream": 1}]
    orders = [np.stack(take(batches(source, 6, **kind), 4))[:, :, 0, 0, 0, 0] for kind in kinds]
    assert len({order.tobytes() for order in orders}) == len(kinds)


def test_an_epoch_shows_each_video_once_and_the_next_in_another_order(config):
    source = open_source(config, "train")
    shown = np.concatenate(take(batches(source, 5, frames=1), 12))[:, 0, 0, 0, 0] // 20  # 5 epochs
    epochs = shown.reshape(5, 12)
    for epoch in epochs:
        assert sorted(epoch) == list(range(12))
    assert len({epoch.tobytes() for epoch in epochs}) == 5


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_batches_of_one(config, processes):
    source = open_source(config, "train")
    alone = take(batches(source, 8, seed=2), 4)
    shares = [
        take(batches(source, 8, seed=2, process_index=p, process_count=processes), 4)
        for p in range(processes)
    ]
    for n, batch in enumerate(alone):
        together = np.concatenate([share[n] for share in shares])
        assert len(together) == 8
        assert sorted(v.tobytes() for v in together) == sorted(v.tobytes() for v in batch)


def test_a_batch_larger_than_the_dataset_is_filled_from_several_epochs(config):
    batch = next(batches(open_source(config, "test"), 7))
    assert len(batch) == 7 and set(batch[:, 0, 0, 0, 0] // 20) == {0, 1, 2}


def test_bad_batches_are_named(config):
    source = open_source(config, "train")
    with pytest.raises(ValueError, match="batch_size=3 is not a positive multiple of the 2"):
        batches(source, 3, process_count=2)
    with pytest.raises(ValueError, match=r"\.npy: 6 frames, but 7 are wanted"):
        next(batches(source, 2, frames=7))
