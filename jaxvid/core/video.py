"""Video files in and out: frame-exact reads, reproducible H.264 and GIF writes.

PyAV, the engine of imageio's video plugin, is used directly: that plugin offers no encoder
options and seeks by assuming a constant frame rate. imageio itself handles still images.
"""

import contextlib
import dataclasses
import itertools
import os
import stat
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import imageio.v3
import numpy as np
from av.video.reformatter import Colorspace, Interpolation

from jaxvid.core.files import InputError, atomic_path

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".gif")
WRITTEN_SUFFIXES = (".mp4", ".gif")

# swscale's defaults truncate, which darkens a video by one level at each conversion; with
# these flags the mean error is zero and the mean absolute error less than half.
SCALER = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
# FFmpeg's own conversion, whose colours are coarse: what decord, OpenCV and imageio decode.
FFMPEG_SCALER = Interpolation.BICUBIC
# A fixed thread count and cpu-independent: the same frames give the same bytes on any machine.
X264 = {"preset": "medium", "x264-params": "cpu-independent=1"}
X264_THREADS = 4
BT709 = 1  # code of the colour matrix, primaries and transfer curve
LIMITED_RANGE = 1  # luma in [16, 235]
BITEXACT_CODEC, BITEXACT_FORMAT = 0x800000, 0x400  # no library versions, no dates in the file
SEEKABLE = ("mov", "matroska")  # containers that store the exact time of each frame
LEAST_FPS = 0.001  # frame rates are fractions of denominators up to 1001
GIF_PALETTES = "palettegen=stats_mode=single", "paletteuse=new=1:dither=sierra2_4a"


@dataclasses.dataclass(frozen=True)
class VideoInfo:
    """What a file holds; height and width are those of the decoded frames."""

    frames: int
    height: int
    width: int
    fps: float  # mean frame rate


def probe(path: str | os.PathLike) -> VideoInfo:
    """Counts the frames and decodes the first one.

    Raises:
      InputError: the file is missing, empty, cut off, has no frames or is not a video.
    """
    path = Path(path)
    with _reading(path) as container:
        stream = container.streams.video[0]
        frames, fps = len(_times(container, path)), float(stream.average_rate or 0)
    with _reading(path) as container:
        first = next(_decode(container, path), None)
    if first is None:
        raise InputError(f"{path}: none of its {frames} frames can be decoded")
    return VideoInfo(frames, *first.shape[:2], fps)


def iter_video(
    path: str | os.PathLike,
    start: int = 0,
    frames: int | None = None,
    scaler: Interpolation = SCALER,
) -> Iterator[np.ndarray]:
    """Yields frames start, ..., start + frames - 1 (None: to the end) as uint8 (h, w, 3).

    Frames are counted in the order of display, whatever their time stamps. FFMPEG_SCALER as
    `scaler` gives the bytes that other readers give.

    Raises:
      InputError: as `probe`; also a frame that is not there, cannot be decoded or has another
        size than the ones before it.
    """
    path = Path(path)
    with _reading(path) as container:
        times = _times(container, path)
        seekable = any(name in container.format.name for name in SEEKABLE)
    stop = len(times) if frames is None else start + frames
    if not 0 <= start <= stop <= len(times):
        asked = f"{start}..{stop - 1}" if stop > start >= 0 else f"from {start}"
        raise InputError(f"{path}: frames {asked} were asked for, but it holds {len(times)}")
    with _reading(path) as container:
        time = times[start] if seekable and 0 < start < stop else None
        found = _decode(container, path, time, scaler)
        if not seekable:
            found = itertools.islice(found, start, None)
        yield from _checked(itertools.islice(found, stop - start), path, start, stop)


def read_video(
    path: str | os.PathLike,
    start: int = 0,
    frames: int | None = None,
    scaler: Interpolation = SCALER,
) -> np.ndarray:
    """Reads frames as uint8 (t, h, w, 3); see `iter_video`."""
    found = list(iter_video(path, start, frames, scaler))
    if not found:
        raise ValueError(f"{path}: asked for no frames")
    return np.stack(found)


def _checked(frames: Iterator[np.ndarray], path: Path, start: int, stop: int):
    """Passes frames on, after a look at their number and sizes."""
    count, size = 0, None
    for frame in frames:
        size = size or frame.shape
        if frame.shape != size:
            raise InputError(
                f"{path}: frame {start + count} is {frame.shape[1]}x{frame.shape[0]} pixels, "
                f"the ones before are {size[1]}x{size[0]}; re-encode it to one size"
            )
        count += 1
        yield frame
    if count < stop - start:
        raise InputError(f"{path}: frame {start + count} of {stop} cannot be decoded")


@contextlib.contextmanager
def _reading(path: Path):
    """Opens a file that has a video stream; turns what the library raises into one line."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: no such video file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a video ({error.strerror})") from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: not a file")
    if found.st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes)")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: holds no video")
            container.streams.video[0].thread_type = "AUTO"
            yield container
    except (av.FFmpegError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "unreadable"
        if not isinstance(error, (av.InvalidDataError, av.EOFError)):
            raise InputError(f"{path}: cannot be read as a video ({reason})") from None
        raise InputError(f"{path}: damaged or not a video ({reason})") from None


def _times(container, path: Path) -> list[int]:
    """Time stamps of the frames shown, in order of display, without decoding them."""
    stream = container.streams.video[0]
    packets = [p for p in container.demux(stream) if p.size]
    if not packets:
        raise InputError(f"{path}: the video has no frames")
    listed = len(stream.index_entries) if "mov" in container.format.name else len(packets)
    if any(p.is_corrupt for p in packets) or len(packets) < listed:
        raise InputError(f"{path}: the file is cut off after {len(packets)} frames")
    return sorted(-1 if p.pts is None else p.pts for p in packets if not p.is_discard)


def _decode(
    container, path: Path, time: int | None = None, scaler: Interpolation = SCALER
) -> Iterator[np.ndarray]:
    """Decodes uint8 (h, w, 3) frames, from the one stamped `time` if given."""
    stream = container.streams.video[0]
    if time is not None:
        container.seek(time, stream=stream, backward=True)
    for frame in container.decode(stream):
        if frame.is_corrupt:
            raise InputError(f"{path}: the frame at {frame.time:.3f} s is damaged")
        if time is None or frame.pts >= time:
            rgb = frame.reformat(format="rgb24", interpolation=scaler).to_ndarray()
            yield np.rot90(rgb, round(frame.rotation / 90)) if frame.rotation else rgb


class VideoWriter:
    """Writes frames to an .mp4 (H.264, yuv420p, BT.709) or .gif as they come.

    The file appears whole when the writer closes; as a context manager it leaves nothing
    behind when the body raises. H.264 in yuv420p has even sizes only: an odd height or width
    is padded by repeating the last row or column, and `padded` says so.
    """

    def __init__(self, path: str | os.PathLike, fps: float, crf: int = 18):
        """fps: frames per second; crf: H.264 quality, 0 (best) to 51, unused for GIF."""
        self.path = Path(path)
        if self.path.suffix.lower() not in WRITTEN_SUFFIXES:
            raise ValueError(f"{path}: cannot write that format; use one of {WRITTEN_SUFFIXES}")
        self.gif = self.path.suffix.lower() == ".gif"
        limit = 50 if self.gif else 1000  # players slow down a GIF with shorter delays
        if not LEAST_FPS <= fps <= limit:
            raise ValueError(f"{path}: fps={fps} is outside [{LEAST_FPS}, {limit}]")
        self.fps = Fraction(fps).limit_denominator(1001)
        self.crf = crf
        self.size = None  # (h, w) of the frames given
        self.frames = 0
        self.padded = False
        self._files = contextlib.ExitStack()
        self._container = None

    def write(self, frames: np.ndarray):
        """frames: uint8 (t, h, w, 3)."""
        frames = np.asarray(frames)
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
            found = f"{frames.dtype}{frames.shape}"
            raise ValueError(f"{self.path}: frames must be uint8 (t, h, w, 3), not {found}")
        for frame in frames:
            self._start(*frame.shape[:2])
            self._encode(np.ascontiguousarray(frame))
            self.frames += 1

    def close(self):
        """Finishes the file and moves it to its name."""
        if not self.frames:
            self.discard()
            raise ValueError(f"{self.path}: no frames were written")
        try:
            self._drain(None)
            self._container.close()
        except BaseException:
            self.discard()
            raise
        self._container = None
        self._files.close()

    def discard(self):
        """Forgets everything; no file remains."""
        with contextlib.suppress(Exception):  # closing writes the trailer, say to a full disk
            if self._container is not None:
                self._container.close()
        with contextlib.suppress(_Discarded):
            self._files.__exit__(_Discarded, _Discarded(), None)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close() if kind is None else self.discard()

    def _start(self, height: int, width: int):
        """Opens the file when the first frame tells the size."""
        if self.size is None:
            self.size = height, width
            temporary = self._files.enter_context(atomic_path(self.path))
            last_delay = {"final_delay": str(round(100 / self.fps))}
            options = last_delay if self.gif else {"movflags": "+faststart"}
            self._container = av.open(str(temporary), "w", options=options)
            self._container.flags |= BITEXACT_FORMAT
            self._stream = self._gif_stream() if self.gif else self._h264_stream()
        elif self.size != (height, width):
            raise ValueError(
                f"{self.path}: frame {self.frames} is {width}x{height} pixels, "
                f"the ones before are {self.size[1]}x{self.size[0]}"
            )

    def _h264_stream(self):
        height, width = (n + n % 2 for n in self.size)
        self.padded = (height, width) != self.size
        stream = self._container.add_stream("libx264", rate=self.fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {**X264, "crf": str(self.crf)}
        codec = stream.codec_context
        codec.thread_count = X264_THREADS
        codec.flags |= BITEXACT_CODEC
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = LIMITED_RANGE
        return stream

    def _gif_stream(self):
        """Each frame gets its own palette of 256 colours."""
        height, width = self.size
        stream = self._container.add_stream("gif", rate=100)  # delays count in 1/100 s
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=width, height=height, format="rgb24", time_base=Fraction(1, 100)
        )
        split = graph.add("split")
        palette, use = (graph.add(*text.split("=", 1)) for text in GIF_PALETTES)
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(graph.add("buffersink"))
        graph.configure()
        self._graph = graph
        return stream

    def _encode(self, frame: np.ndarray):
        if not self.gif:
            height, width = self.size
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            image = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=SCALER
            )
            image.pts = self.frames
            self._drain(image)
            return
        image = av.VideoFrame.from_ndarray(frame, format="rgb24")
        image.pts = round(100 * self.frames / self.fps)
        image.time_base = Fraction(1, 100)
        self._graph.push(image)
        self._drain(self._graph.pull())

    def _drain(self, image):
        for packet in self._stream.encode(image):
            self._container.mux(packet)


class _Discarded(Exception):  # noqa: N818
    """Tells `atomic_path` to drop its file."""


def write_video(path: str | os.PathLike, frames: np.ndarray, fps: float, crf: int = 18):
    """Writes uint8 (t, h, w, 3) frames to an .mp4 or .gif in one go."""
    with VideoWriter(path, fps, crf) as writer:
        writer.write(frames)


def write_png(path: str | os.PathLike, image: np.ndarray):
    """Writes a uint8 (h, w, 3) image, whole or not at all."""
    data = imageio.v3.imwrite("<bytes>", image, extension=".png")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] (clipped to it) to the nearest of 256 levels."""
    levels = (np.asarray(frames, np.float32) + 1) * 127.5
    if not np.isfinite(levels).all():
        raise ValueError("the frames hold NaN or infinite values")
    return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


def to_float(frames: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [-1, 1]; `to_uint8` returns the same levels."""
    return np.asarray(frames).astype(np.float32) / 127.5 - 1
