"""Samples of Cosmos post-training: upstream's folders of videos, or drawn scenes without files.

    ROOT/captions/ftheta_camera_front_wide_120fov/{sample}.json     {"caption": "..."}
    ROOT/control_input_hdmap_bbox/ftheta_camera_*/{sample}.mp4      every camera
    ROOT/videos/ftheta_camera_*/{sample}.mp4                        every camera

Only the front camera has a caption; each camera's text begins with where it looks.
"""

import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvid.core import video
from jaxvid.core.config import nearest
from jaxvid.core.files import InputError
from jaxvid.core.views import CAMERAS, IDS, VIEWS
from jaxvid.wan.resize import resize_uint8

CAPTIONS, VIDEOS = "captions", "videos"
FRONT = "front_wide"
RATE = 10  # frames per second that the released network knows
SCALER = video.FFMPEG_SCALER  # of colours, as when sampling
THREADS = 8  # that look at files before a run
SHOWN = 3  # files that an error lists
ON_A_CAR = "The video is captured from a camera mounted on a car. The camera is facing {}."
PREFIXES = {
    "front_wide": ON_A_CAR.format("forward"),
    "cross_right": ON_A_CAR.format("to the right"),
    "rear_right": ON_A_CAR.format("the rear right side"),
    "rear": ON_A_CAR.format("backwards"),
    "rear_left": ON_A_CAR.format("the rear left side"),
    "cross_left": ON_A_CAR.format("to the left"),
    "front_tele": "The video is captured from a telephoto camera mounted on a car. "
    "The camera is facing forward.",
}


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where samples come from, and how much of each is taken."""

    root: str = ""  # folder in upstream's layout; "": scenes are drawn, see Shapes
    views: tuple[str, ...] = VIEWS  # cameras; their order means nothing
    control: str = "control_input_hdmap_bbox"  # folder of the control videos
    frames: int = 29  # of each video, from its start
    height: int = 720
    width: int = 1280
    samples: int = 8  # that are drawn, without root
    prepared: str = ""  # folder that keeps latents and words; "": in run.output

    def __post_init__(self):
        for view in self.views:
            if view not in IDS:
                raise ValueError(f"data.views: {view!r} is no camera{nearest(view, VIEWS)}")
        if not self.views or len(set(self.views)) < len(self.views):
            raise ValueError(f"data.views={self.views} must name one or more cameras, each once")
        for field in ("frames", "height", "width", "samples"):
            if getattr(self, field) < 1:
                raise ValueError(f"data.{field}={getattr(self, field)} must be at least 1")

    @property
    def cameras(self) -> tuple[str, ...]:
        """The views in the order of their ids."""
        return tuple(view for view in VIEWS if view in self.views)

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(IDS[view] for view in self.cameras)


class Clip(NamedTuple):
    """The frames of one sample, uint8 (v, t, h, w, 3) each."""

    video: np.ndarray
    control: np.ndarray


def texts(config: DataConfig, caption: str) -> list[str]:
    """What each camera's text is: where it looks, and the caption for the front one.

    Without the front camera the first one has the caption.
    """
    named = FRONT if FRONT in config.cameras else config.cameras[0]
    return [f"{PREFIXES[v]} {caption if v == named else ''}" for v in config.cameras]


class Folder:
    """Samples in upstream's folders; all files are looked for at once."""

    def __init__(self, config: DataConfig):
        """Raises ValueError that names files or folders that are missing."""
        self.config = config
        self.root = Path(config.root).expanduser()
        captions = self.root / CAPTIONS / _folder(FRONT)
        if not captions.is_dir():
            raise ValueError(f"data.root={self.root}: there is no folder {captions}")
        self.names = sorted(path.stem for path in captions.glob("*.json"))
        if not self.names:
            raise ValueError(f"{captions} holds no captions, files that end in .json")
        self.captions = [_caption(captions / f"{name}.json") for name in self.names]
        missing = [path for i in range(len(self)) for path in self.files(i) if not path.is_file()]
        if missing:
            shown = ", ".join(map(str, missing[:SHOWN]))
            raise ValueError(
                f"{len(missing)} videos of {len(self)} samples are missing: {shown}"
                f"{', ...' * (len(missing) > SHOWN)}; every sample has a video and a control of "
                "every camera, or name the cameras in data.views"
            )

    def __len__(self):
        return len(self.names)

    def describe(self) -> str:
        return f"{len(self)} samples of {len(self.config.cameras)} cameras in {self.root}"

    def files(self, i: int) -> list[Path]:
        """The videos of all cameras, then the controls."""
        folders = (VIDEOS, self.config.control)
        places = (self.root / f / _folder(v) for f in folders for v in self.config.cameras)
        return [place / f"{self.names[i]}.mp4" for place in places]

    def identity(self, i: int) -> list:
        """Tells contents apart without reading them."""
        stats = [(path.stat(), path) for path in self.files(i)]
        return [f"{path.relative_to(self.root)} {s.st_size} {s.st_mtime_ns}" for s, path in stats]

    def check(self, chosen: Sequence[int]) -> list[str]:
        """Looks into the files of some samples; returns notes.

        Raises:
          InputError: a file that is no video or has too few frames; videos of one sample that do
            not run at one rate.
        """
        paths = [path for i in chosen for path in self.files(i)]
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(video.probe, paths))
        for path, info in zip(paths, found, strict=True):
            if info.frames < self.config.frames:
                raise InputError(
                    f"{path} has {info.frames} frames; data.frames={self.config.frames} are taken"
                )
        each = 2 * len(self.config.cameras)  # files of a sample
        for start in range(0, len(paths), each):
            _check_rates(paths[start : start + each], found[start : start + each])
        rates = sorted({round(info.fps, 2) for info in found} - {float(RATE)})
        return [f"videos have {rates} frames per second, the release was trained at {RATE}: frames "
                "are taken as they are"] if rates else []  # fmt: skip

    def clip(self, i: int) -> Clip:
        """The frames from the start, at the wanted size."""
        config = self.config
        frames = [
            resize_uint8(
                video.read_video(path, frames=config.frames, scaler=SCALER),
                config.height,
                config.width,
            )
            for path in self.files(i)
        ]
        views = len(config.cameras)
        return Clip(np.stack(frames[:views]), np.stack(frames[views:]))


def _check_rates(paths: Sequence[Path], found: Sequence[video.VideoInfo]) -> None:
    rates = [round(info.fps, 2) for info in found]
    for path, rate in zip(paths, rates, strict=True):
        if rate != rates[0]:
            raise InputError(
                f"{path} has {rate} frames per second, {paths[0]} of the same sample {rates[0]}: "
                "their frames would not show the same moments; give both one rate"
            )


def _folder(view: str) -> str:
    return f"ftheta_{CAMERAS[view]}"


def _caption(path: Path) -> str:
    try:
        caption = json.loads(path.read_text(encoding="utf-8"))["caption"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is not {{"caption": "..."}}: {error!r}') from error
    if not isinstance(caption, str):
        raise ValueError(f"{path}: the caption is not text")
    return caption


class Shapes:
    """Drawn scenes: a bright bar moves over a dark ground, the control shows where it is.

    Position and direction differ by sample and view, so that only the control tells them. For
    tests and for a first run without data.
    """

    def __init__(self, config: DataConfig):
        self.config = config
        self.names = [f"drawn {i}" for i in range(config.samples)]
        self.captions = ["A bright bar moves over a dark ground."] * config.samples

    def __len__(self):
        return self.config.samples

    def describe(self) -> str:
        return f"{len(self)} drawn samples of {len(self.config.cameras)} cameras"

    def identity(self, i: int) -> list:
        return ["drawn", i]

    def check(self, chosen: Sequence[int]) -> list[str]:
        return []

    def clip(self, i: int) -> Clip:
        clips = [self._view(np.random.default_rng([i, view])) for view in self.config.ids]
        return Clip(*(np.stack(frames) for frames in zip(*clips, strict=True)))

    def _view(self, rng) -> tuple[np.ndarray, np.ndarray]:
        """Frames of the video and of its control: inside the bar, and the ground behind it."""
        config = self.config
        start, speed = rng.uniform(0, 1), rng.choice([-1, 1]) * rng.uniform(0.1, 0.3)
        x = (np.arange(config.width) + 0.5) / config.width
        t = np.arange(config.frames)[:, None] / max(config.frames - 1, 1)
        inside = np.abs((x - start - speed * t) % 1 - 0.5) < 0.15  # (t, w)
        inside = np.broadcast_to(inside[:, None, :, None], (*self._size(), 1))
        video = np.where(inside, np.uint8([230, 180, 40]), np.uint8([20, 40, 90]))
        control = np.where(inside, np.uint8([255, 255, 255]), np.uint8([0, 0, 0]))
        return video, control

    def _size(self) -> tuple[int, int, int]:
        return self.config.frames, self.config.height, self.config.width


def open_data(config: DataConfig) -> Folder | Shapes:
    """The samples that the settings name."""
    return Folder(config) if config.root else Shapes(config)
