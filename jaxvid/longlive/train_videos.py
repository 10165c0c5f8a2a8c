"""Videos with captions to learn from, as latents of the VAE that are kept on the disk."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxvid.core.array_cache import ArrayCache
from jaxvid.core.mesh import MeshConfig, make_mesh, replicated
from jaxvid.core.video import FFMPEG_SCALER, VIDEO_SUFFIXES, probe, read_video
from jaxvid.longlive import models
from jaxvid.longlive.sample import resize
from jaxvid.longlive.sources import read_lines
from jaxvid.longlive.train_config import DataConfig
from jaxvid.longlive.train_prompts import Prompts, read_row
from jaxvid.wan import vae, vae_keys

FPS = 16  # of the videos that Wan knows


@dataclasses.dataclass(frozen=True)
class Clip:
    """Some frames of a video file."""

    path: Path
    start: int
    caption: str
    fps: float


def list_clips(data: DataConfig, frames: int) -> list[Clip]:
    """The clips of `frames` pixel frames of all videos; each file is looked into.

    Raises:
      ValueError: no videos, one without a caption, or one that is too short.
    """
    if not data.videos:
        raise ValueError(
            "data.videos is empty: give a .jsonl of videos and captions, or a folder of both"
        )
    path = Path(data.videos).expanduser()
    videos = _of_folder(path) if path.is_dir() else _of_list(path)
    return [clip for video in videos for clip in _clips(*video, frames, data.windows)]


def _of_folder(folder: Path) -> list[tuple[Path, str]]:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
    if not paths:
        raise ValueError(f"data.videos={folder}: no video files ({' '.join(VIDEO_SUFFIXES)})")
    found = []
    for path in paths:
        caption = path.with_suffix(".txt")
        text = caption.read_text(encoding="utf-8").strip() if caption.is_file() else ""
        if not text:
            raise ValueError(f"{path} has no caption: write one to {caption}")
        found.append((path, text))
    return found


def _of_list(path: Path) -> list[tuple[Path, str]]:
    if path.suffix != ".jsonl":
        raise ValueError(f"data.videos={path} has to be a folder or a .jsonl file")
    found = []
    for number, line in read_lines(path, "data.videos"):
        row = read_row(path, number, line)
        if not all(isinstance(row.get(name), str) and row[name] for name in ("video", "caption")):
            raise ValueError(f'{path} line {number} has to be {{"video": path, "caption": text}}')
        video = Path(row["video"]).expanduser()
        beside = path.parent / video
        found.append((beside if beside.exists() and not video.exists() else video, row["caption"]))
    return found


def _clips(path: Path, caption: str, frames: int, windows: int) -> list[Clip]:
    info = probe(path)
    found = info.frames
    if found < frames:
        raise ValueError(
            f"{path} has {found} frames, train.frames needs {frames}: "
            "take it out of the list, or set train.frames lower"
        )
    starts = np.linspace(0, found - frames, windows).astype(int) if windows > 1 else [0]
    return [Clip(path, int(start), caption, info.fps) for start in dict.fromkeys(starts)]


class Videos:
    """The data set of flow matching: latents (t, h, w, c) and a caption for each clip."""

    def __init__(self, setup):
        """setup: see train_setup.Setup; nothing is read but the lengths of the videos."""
        self.setup = setup
        self.frames = (setup.train.frames - 1) * setup.vae.time_stride + 1
        self.clips = list_clips(setup.data, self.frames)
        self.cache = ArrayCache(setup.data.latents) if setup.data.latents else None

    def __len__(self) -> int:
        return len(self.clips)

    def describe(self) -> str:
        rates = {clip.path: clip.fps for clip in self.clips}
        text = f"{len(self)} clips of {self.frames} frames from {len(rates)} videos"
        if others := [fps for fps in rates.values() if abs(fps - FPS) > 0.01 * FPS]:
            text += (
                f", {len(others)} of which have {min(others):g} to {max(others):g} frames per "
                f"second and are taken as if they had Wan's {FPS}"
            )
        return text

    def listing(self) -> list:
        return [[clip.path.name, clip.start, clip.caption] for clip in self.clips]

    def prompts(self, index: int) -> Prompts:
        return (self.clips[index].caption,)

    def __getitem__(self, index: int) -> np.ndarray:
        """Latents of a clip, from the disk or made now."""
        key = self._key(self.clips[index])
        found = self.cache.read(key) if self.cache else None
        if found is None:
            found = self._encode(self.clips[index])
            if self.cache:
                self.cache.write(key, found)
        return found

    def _key(self, clip: Clip) -> str:
        stat, data = clip.path.stat(), self.setup.data
        file = [str(clip.path.resolve()), stat.st_size, stat.st_mtime_ns]
        what = [clip.start, self.frames, data.height, data.width]
        return json.dumps([*file, *what, self.setup.models.dtype, self._vae_identity])

    @functools.cached_property
    def _vae_identity(self) -> str:
        return models.vae_identity(self.setup)

    def _encode(self, clip: Clip) -> np.ndarray:
        data = self.setup.data
        frames = read_video(clip.path, clip.start, self.frames, FFMPEG_SCALER)
        return self._encoder(resize(frames, data.height, data.width)[None])[0]

    @functools.cached_property
    def _encoder(self) -> Callable:
        """On one device of this process, whatever the others do."""
        config, step = self.setup.vae, self.setup.rollout.block
        alone = make_mesh(MeshConfig(), jax.local_devices()[:1])
        params = vae_keys.load_or_draw(self.setup.models, self.setup.vae, alone)
        encode = jax.jit(functools.partial(vae.encode, config, step=step))

        def encoded(video):
            with jax.set_mesh(alone):
                return np.asarray(encode(params, jax.device_put(video, replicated(alone))))

        return encoded
