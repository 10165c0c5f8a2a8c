"""Video files: what goes in comes out, and broken files are named in one line."""

import gc
import os
import resource
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from jaxvid.core import video
from jaxvid.core.video import VideoInfo, VideoWriter, iter_video, probe, read_video, write_video
from jaxvid.core.video_parts import VideoPartsWriter


def gradient(frames=60, height=48, width=64):
    """Smooth frames, each of a brightness of its own, as uint8 (t, h, w, 3)."""
    t, h, w = np.meshgrid(*map(np.arange, (frames, height, width)), indexing="ij")
    return np.stack([(h + 3 * t) % 256, 2 * w + t, 255 - 4 * t + w / 4], -1).astype(np.uint8)


def encode(path, codec, frames, **options):
    """A file as other programs write it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", options
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_round_trip(tmp_path, suffix):
    frames, path = gradient(), tmp_path / f"a{suffix}"
    write_video(path, frames, fps=12.5)
    assert probe(path) == VideoInfo(60, 48, 64, 12.5)
    read = read_video(path).astype(int)
    assert np.abs(read - frames).mean() < 3
    assert abs((read - frames).mean()) < 0.3  # rounds: truncation would show as about -1
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("level", [0, 1, 127, 128, 254, 255])
def test_grey_levels_survive(tmp_path, level):
    frames = np.full((3, 16, 16, 3), level, np.uint8)
    write_video(tmp_path / "a.mp4", frames, fps=10)
    difference = read_video(tmp_path / "a.mp4").astype(int) - level
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_same_frames_same_bytes_however_they_come(tmp_path, suffix):
    frames = gradient(height=200, width=200)
    write_video(tmp_path / f"a{suffix}", frames, fps=10)
    with VideoWriter(tmp_path / f"b{suffix}", fps=10) as writer:
        for part in np.split(frames, [1, 7, 30]):
            writer.write(part)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_odd_sizes_are_padded_by_repetition(tmp_path):
    frames = gradient(5, 33, 49)
    with VideoWriter(tmp_path / "a.mp4", fps=10) as writer:
        writer.write(frames)
        assert writer.padded and writer.size == (33, 49)
    read = read_video(tmp_path / "a.mp4").astype(int)
    assert read.shape == (5, 34, 50, 3)
    assert np.abs(read[:, :33, :49] - frames).mean() < 3
    assert np.abs(read[:, 33] - read[:, 32]).mean() < 3
    write_video(tmp_path / "a.gif", frames, fps=10)
    assert probe(tmp_path / "a.gif") == VideoInfo(5, 33, 49, 10)


@pytest.mark.parametrize(
    "name, codec",
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.mov", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.webm", "libvpx-vp9"),
    ],
)
def test_reads_are_frame_exact(tmp_path, name, codec):
    """With B-frames and key frames far apart."""
    path = tmp_path / name
    encode(path, codec, gradient())
    whole = read_video(path)
    assert len(whole) == probe(path).frames == 60
    for start, count in [(0, 60), (0, 1), (1, 3), (17, 20), (59, 1)]:
        np.testing.assert_array_equal(read_video(path, start, count), whole[start : start + count])
    np.testing.assert_array_equal(read_video(path, 50), whole[50:])


def test_variable_frame_rate_is_read_by_frame(tmp_path):
    path, frames = tmp_path / "a.mp4", gradient(20)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1000)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for n, frame in enumerate(frames):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts = n * n  # ever slower
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    whole = read_video(path)
    assert len(whole) == 20
    np.testing.assert_array_equal(read_video(path, 13, 4), whole[13:17])


def test_iter_video_streams(tmp_path):
    write_video(tmp_path / "a.mp4", gradient(10), fps=10)
    frames = iter_video(tmp_path / "a.mp4", 2, 3)
    assert next(frames).shape == (48, 64, 3)
    assert len(list(frames)) == 2


def test_floats_are_rounded():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(video.to_uint8(video.to_float(levels)), levels)
    values = np.array([-3, -1, -0.001, 0.999, 1, 3], np.float32)
    np.testing.assert_array_equal(video.to_uint8(values), [0, 0, 127, 255, 255, 255])
    with pytest.raises(ValueError, match="NaN"):
        video.to_uint8(np.array([0, np.nan]))


def broken_files(folder: Path) -> dict[str, str]:
    """File name -> what the message must say."""
    write_video(folder / "good.mp4", gradient(), fps=10)
    data = (folder / "good.mp4").read_bytes()
    half = len(data) // 2
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_bytes(b"hello " * 1000)
    (folder / "cut.mp4").write_bytes(data[:half])
    (folder / "start.mp4").write_bytes(data[:500])
    (folder / "holes.mp4").write_bytes(data[:half] + bytes(500) + data[half + 500 :])
    (folder / "folder.mp4").mkdir()
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), "f4"), format="fltp", layout="mono")
        sound.rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with av.open(str(folder / "none.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuvj420p"
        container.start_encoding()
    return {
        "missing.mp4": "no such",
        "empty.mp4": "empty",
        "text.mp4": "not a video",
        "cut.mp4": "cut off",
        "start.mp4": "damaged",
        "holes.mp4": "damaged",
        "folder.mp4": "not a file",
        "sound.mp4": "no video",
        "none.avi": "no frames",
    }


def test_broken_files_are_named_in_one_line(tmp_path):
    for name, cause in broken_files(tmp_path).items():
        with pytest.raises(ValueError, match=cause) as error:
            read_video(tmp_path / name)
        assert name in str(error.value) and len(str(error.value).splitlines()) == 1
        if name != "holes.mp4":  # found only by decoding all of it
            with pytest.raises(ValueError):
                probe(tmp_path / name)


def test_frames_that_are_not_there(tmp_path):
    write_video(tmp_path / "a.mp4", gradient(10), fps=10)
    for start, count in [(5, 6), (-1, 2), (11, None), (0, 11)]:
        with pytest.raises(ValueError, match="it holds 10"):
            read_video(tmp_path / "a.mp4", start, count)


@pytest.mark.parametrize("fps", [0, 1e-4, 1001, float("nan")])
def test_frame_rates_have_limits(tmp_path, fps):
    write_video(tmp_path / "a.mp4", gradient(2), fps=0.001)
    with pytest.raises(ValueError, match=r"fps=.* is outside \[0.001, 1000\]$"):
        write_video(tmp_path / "b.mp4", gradient(2), fps=fps)


def test_frames_of_different_sizes(tmp_path):
    with pytest.raises(ValueError, match="frame 3 is 32x48 pixels, the ones before are 64x48"):
        with VideoWriter(tmp_path / "a.mp4", fps=10) as writer:
            writer.write(gradient(3))
            writer.write(gradient(3, width=32))
    assert not os.listdir(tmp_path)
    small, large = tmp_path / "a.mkv", tmp_path / "b.mkv"
    encode(small, "mjpeg", gradient(3, width=32), strict="unofficial")
    encode(large, "mjpeg", gradient(3), strict="unofficial")
    path = tmp_path / "both.avi"
    with (
        av.open(str(path), "w") as container,
        av.open(str(small)) as one,
        av.open(str(large)) as two,
    ):
        stream = container.add_stream_from_template(one.streams.video[0])
        for n, packet in enumerate([*one.demux(), *two.demux()]):
            if packet.size:
                packet.stream, packet.pts, packet.dts = stream, n, n
                packet.time_base = stream.time_base
                container.mux(packet)
    with pytest.raises(ValueError, match=r"64x48 pixels, the ones before are 32x48"):
        read_video(path)


@pytest.mark.parametrize(
    "name, frames, fps",
    [
        ("a.avi", gradient(2), 10),
        ("a.mp4", gradient(2), 0),
        ("a.gif", gradient(2), 60),
        ("a.mp4", gradient(2)[:0], 10),
        ("a.mp4", gradient(2)[0], 10),
        ("a.mp4", gradient(2) / 255, 10),
    ],
)
def test_what_cannot_be_written(tmp_path, name, frames, fps):
    with pytest.raises(ValueError, match=name):
        write_video(tmp_path / name, frames, fps)
    assert not os.listdir(tmp_path)


def test_an_interrupted_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path, gradient(3), fps=10)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, fps=10) as writer:
        writer.write(gradient(30))
        raise KeyboardInterrupt
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.mp4"]


def test_a_png_that_the_disk_cannot_hold_is_one_error(tmp_path, monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError):
            video.write_png(tmp_path / "a.png", gradient(1)[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    gc.collect()
    assert not unraisable and not list(tmp_path.iterdir())


def test_png(tmp_path):
    image = gradient(1)[0]
    video.write_png(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_video(tmp_path / "a.png")[0], image)


@pytest.mark.parametrize("lengths", [[1, 1, 1], [9, 2, 8, 1, 30], [3, 2, 2, 2]])
@pytest.mark.parametrize("videos", [1, 3])
def test_parts_make_one_video(tmp_path, lengths, videos):
    """Several videos come one after another; each life of the writer has one part."""
    whole = np.stack([gradient(sum(lengths), height=16, width=32)] * videos)
    whole += np.arange(videos, dtype=np.uint8)[:, None, None, None, None] * 20
    mark, path = None, tmp_path / "a.mp4"
    for end, length in zip(np.cumsum(lengths), lengths, strict=True):
        writer = VideoPartsWriter(path, fps=10, mark=mark)
        part = whole[:, end - length : end]
        writer.write(part if videos > 1 else part[0])
        mark = writer.mark()
        writer.write(part if videos > 1 else part[0])  # of a life that was cut short
    VideoPartsWriter(path, fps=10, mark=mark).close()
    assert probe(path) == VideoInfo(videos * sum(lengths), 16, 32, 10)
    found = read_video(path).reshape(whole.shape).astype(int)
    assert np.abs(found - whole).mean(axis=(2, 3, 4)).max() < 8
