"""Videos in parts: the joined file is what its parts are, whatever lives it took to write them."""

import numpy as np
import pytest

from jaxvid.core.video import probe, read_video, write_video
from jaxvid.core.video_parts import VideoPartsWriter
from jaxvid.runs.writers import open_marked_writer


@pytest.fixture(scope="module")
def frames():
    image = np.random.default_rng(0).integers(0, 256, (33, 48, 3), np.uint8)
    return np.stack([np.roll(image, n, axis=1) for n in range(40)])


def written(path, frames, marks, mark=None, start=0, fps=16):
    """Writes frames up to each mark; returns the file's writer."""
    writer = VideoPartsWriter(path, fps, mark=mark)
    for end in marks:
        writer.write(frames[start:end])
        start = end
        writer.mark()
    writer.write(frames[start:])
    return writer


@pytest.mark.parametrize("fps", [16, 30000 / 1001])
def test_joined_parts_decode_as_the_parts_do(tmp_path, frames, fps):
    writer = written(tmp_path / "a.mp4", frames, (11, 12, 25), fps=fps)
    writer.mark()
    parts = [read_video(tmp_path / f"a-part{n}.mp4") for n in range(4)]
    writer.close()
    np.testing.assert_array_equal(read_video(tmp_path / "a.mp4"), np.concatenate(parts))
    np.testing.assert_array_equal(
        read_video(tmp_path / "a.mp4", 23, 4), np.concatenate(parts)[23:27]
    )
    info = probe(tmp_path / "a.mp4")
    assert info.frames == 40 and info.fps == pytest.approx(fps)
    assert read_video(tmp_path / "a-part3.mp4").shape == parts[3].shape  # to go on from
    writer.discard()
    assert not list(tmp_path.iterdir())


def test_a_second_life_ends_with_the_same_bytes(tmp_path, frames):
    written(tmp_path / "whole.mp4", frames, (12, 25)).close()
    first = VideoPartsWriter(tmp_path / "killed.mp4", 16)
    first.write(frames[:12])
    mark = first.mark()
    first.write(frames[12:30])
    first.mark()  # which no snapshot tells of
    first.write(frames[30:33])
    written(tmp_path / "killed.mp4", frames, (25,), mark, start=12).close()
    assert (tmp_path / "killed.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_nothing_remains_of_what_is_discarded(tmp_path, frames):
    written(tmp_path / "a.mp4", frames, (12,)).discard()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="no frames were written"):
        VideoPartsWriter(tmp_path / "a.mp4", 16).close()


def test_a_file_of_one_part_is_as_written_without_marks(tmp_path, frames):
    for suffix in ("mp4", "gif"):
        write_video(tmp_path / f"whole.{suffix}", frames, 10)
        writer = open_marked_writer(tmp_path / f"a.{suffix}", {"fps": 10})
        mark = writer.mark()  # before its first frame
        writer = open_marked_writer(tmp_path / f"a.{suffix}", {"fps": 10}, mark)
        writer.write(frames)
        writer.close()
        whole = (tmp_path / f"whole.{suffix}").read_bytes()
        assert (tmp_path / f"a.{suffix}").read_bytes() == whole


def test_a_gif_cannot_be_gone_on_with(tmp_path, frames):
    writer = open_marked_writer(tmp_path / "a.gif", {"fps": 10})
    writer.write(frames)
    with pytest.raises(ValueError, match=r"write no \.gif"):
        writer.mark()
