"""An .mp4 that is written in parts, so that it can be gone on with when its process was killed.

The container holds its table at the end: a file that was not finished is worth nothing. So every
`mark` finishes a part, a video of its own, and in the end their packets are put into one file as
they are. The bytes follow from the frames and from where the marks were.
"""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from jaxvid.core.files import atomic_path, link
from jaxvid.core.video import BITEXACT_FORMAT, VideoWriter


class VideoPartsWriter:
    """Like VideoWriter, with marks. Parts lie beside the file, in a folder that is to go.

    It also takes several videos that grow at the same time, frames (v, t, h, w, 3): in the file
    they come one after another, the whole first video first.
    """

    def __init__(self, path: Path, fps: float, crf: int = 18, mark: dict | None = None):
        """mark: what `mark` returned in an earlier life; what was written later is forgotten.

        Raises:
          ValueError: a part is not what it was at the mark.
        """
        self.path, self.fps, self.crf = path, fps, crf
        self.frames, self._parts = (mark["frames"], mark["parts"]) if mark else (0, 0)
        self._videos = mark["videos"] if mark else 0  # of a (v, t, h, w, 3), 0 before any frame
        self._writers = []
        for place, size in (mark or {"sizes": []})["sizes"]:
            part = self._part(*place)
            if not part.exists() or part.stat().st_size != size:
                raise ValueError(f"{part} is not what it was")

    def write(self, frames: np.ndarray):
        """frames: uint8 (t, h, w, 3), or (v, t, h, w, 3) with the same v each time."""
        videos = [frames] if frames.ndim == 4 else list(frames)
        if self._videos not in (0, len(videos)):
            raise ValueError(f"{self.path}: {len(videos)} videos after {self._videos}")
        self._videos = len(videos)
        if not self._writers:
            paths = [self._part(self._parts, video) for video in range(self._videos)]
            self._writers = [VideoWriter(path, self.fps, self.crf) for path in paths]
        for writer, video in zip(self._writers, videos, strict=True):
            writer.write(video)
            self.frames += len(video)

    def mark(self) -> dict:
        """Puts all frames so far on the disk; returns what is needed to go on after them.

        Raises:
          ValueError: frames in a file that is no .mp4.
        """
        if self._writers and self.path.suffix != ".mp4":
            suffix = self.path.suffix
            raise ValueError(f"{self.path}: only an .mp4 can be gone on with: write no {suffix}")
        self._end_part()
        places = [(n, video) for n in range(self._parts) for video in range(self._videos)]
        sizes = [(place, self._part(*place).stat().st_size) for place in places]
        mark = {"frames": self.frames, "parts": self._parts, "videos": self._videos}
        return mark | {"sizes": sizes}

    def close(self):
        """Makes the file; the parts stay, until it is sure that nobody goes on from them."""
        self._end_part()
        if not self._parts:
            raise ValueError(f"{self.path}: no frames were written")
        pairs = [(n, video) for video in range(self._videos) for n in range(self._parts)]
        parts = [self._part(*pair) for pair in pairs]
        if len(parts) == 1:
            link(parts[0], self.path)
            return
        with atomic_path(self.path) as temporary:
            join(parts, temporary)

    def discard(self):
        """Forgets everything; no file remains."""
        for writer in self._writers:
            writer.discard()
        self.path.unlink(missing_ok=True)
        for video in range(self._videos):
            for number in range(self._parts + 1):
                self._part(number, video).unlink(missing_ok=True)

    def _end_part(self):
        for writer in self._writers:
            writer.close()
        self._parts += bool(self._writers)
        self._writers = []

    def _part(self, number: int, video: int) -> Path:
        name = f"{self.path.stem}-part{number}" + (f"-{video}" if video else "")
        return self.path.with_name(f"{name}{self.path.suffix}")


def join(parts: list[Path], path: Path) -> None:
    """One video of the packets of several, all encoded alike; times go on from part to part.

    Packets come in the order of decoding, one each frame, so that is when they are decoded. How far
    ahead of their display differs: short parts have no frames that look forward.
    """
    lead = max(number - shown for part in parts for number, (_, shown) in enumerate(_packets(part)))
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as joined:
        joined.flags |= BITEXACT_FORMAT
        stream, first = None, 0  # the number of a part's first frame
        for part in parts:
            for number, (packet, shown) in enumerate(_packets(part)):
                if stream is None:
                    source = packet.stream
                    stream = joined.add_stream_from_template(source)
                    stream.time_base = source.time_base
                    length = _length(source)
                packet.pts = (first + shown) * length
                packet.dts = (first + number - lead) * length
                packet.stream = stream
                joined.mux(packet)
            first += number + 1


def _packets(part: Path) -> Iterator[tuple[av.Packet, int]]:
    """Packets in the order of decoding, and the numbers of their frames in that of display."""
    with av.open(str(part)) as container:
        source = container.streams.video[0]
        for packet in container.demux(source):
            if packet.size:
                yield packet, round(packet.pts / _length(source))


def _length(source) -> int:
    """Of a frame, in units of the stream's time."""
    return round(1 / (source.average_rate * source.time_base))
