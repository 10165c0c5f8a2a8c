"""Pictures of a schedule: one row for each call of the network, one cell for each frame."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from jaxvid.core.config import build
from jaxvid.core.files import atomic_path
from jaxvid.core.mesh import MeshConfig
from jaxvid.data.sources import DATASETS, DataConfig, open_source
from jaxvid.fdm import marking, naming, schemes
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.sample_config import SampleConfig, Settings
from jaxvid.fdm.setup import build_section, sampling_settings
from jaxvid.fdm.unet import UNetConfig

CELL = 4  # pixels, plus one of black border

BORDER = (0, 0, 0)
MISSING = (255, 255, 255)
EXISTING = (50, 50, 50)
OBSERVED = (50, 50, 255)
LATENT = (255, 69, 0)


def picture_settings(config: ConfigDict) -> Settings:
    """As sampling_settings; a picture needs no checkpoint if the config names the sizes.

    Raises:
      ValueError: see sampling_settings; no checkpoint, and what is needed of it not given either.
    """
    if (checkpoint := config.get("checkpoint")) and Path(checkpoint).expanduser().exists():
        return sampling_settings(config)
    sampling = build_section(SampleConfig, config, "sampling")
    fields = dict(config.get("data", {}))
    name, needs = fields.get("name"), f"there is no checkpoint {checkpoint!r}; without one, "
    frames = fields.get("frames") or (DATASETS[name].frames if name in DATASETS else None)
    if not (frames and sampling.max_frames):
        raise ValueError(f"{needs}a picture needs data.frames (--T) and sampling.max_frames")
    if schemes.is_adaptive(sampling.scheme) and not name:
        raise ValueError(f"{needs}{sampling.scheme} needs data.name, the videos to choose from")
    if sampling.optimality and not (checkpoint or sampling.schedule):
        raise ValueError(f"{needs}sampling.optimality needs sampling.schedule, the schedule's file")
    fields |= {"name": name or "maze_walk", "frames": frames}
    return Settings(
        checkpoint=checkpoint or "",
        network=UNetConfig(),
        diffusion=DiffusionConfig(respacing=sampling.respacing),
        arguments={},
        step=0,
        data=build(DataConfig, fields, "config.data"),
        sampling=sampling,
        mesh=MeshConfig(),
        T=frames,
        max_frames=sampling.max_frames,
        step_size=sampling.step_size or max(1, sampling.max_frames // 2),
        output=config.get("run", {}).get("output", ""),
    )


def visualise(
    settings: Settings, embed: Callable | None = None, folder="visualisations"
) -> list[Path]:
    """Writes the pictures that upstream's `--just_visualise` writes; reads no weights.

    The observed frames of adaptive schemes depend on the videos. Theirs are chosen from the true
    videos of the first batch, as upstream does, with one picture for each video.

    Args:
      settings: sampling.visualise is the style: "small" and "big" as in the paper's code,
        "refactored" as in the other.
      embed: (t, h, w, 3) in [-1, 1] to (t, d), for adaptive schemes; None compares pixels.
    """
    sampling = settings.sampling
    adaptive = schemes.is_adaptive(sampling.scheme)
    videos = _first_videos(settings) if adaptive else [None]
    steps = list(settings.scheme(_look(videos, embed))) if adaptive else settings.steps()
    paths = []
    for video in range(len(videos)):
        path = Path(folder, _name(settings, video if adaptive else None))
        picture = schedule_picture(
            *(steps, settings.T, settings.given_frames()),
            video=video,
            small=sampling.visualise == "small",
        )
        with atomic_path(path) as temporary:
            Image.fromarray(picture).save(temporary, format="png")
        paths.append(path)
    return paths


def _first_videos(settings: Settings) -> list[np.ndarray]:
    source = open_source(settings.data, settings.sampling.split)
    count = min(settings.sampling.batch_size, len(source))
    return [marking.normalise(source[i]) for i in range(count)]


def _look(videos, embed):
    """Embeds frames of all videos: list of n indices to (b, n, d)."""
    embed = embed or (lambda frames: frames.reshape(len(frames), -1))
    return lambda frames: np.stack([embed(video[np.asarray(frames)]) for video in videos])


def _name(settings: Settings, index: int | None) -> str:
    sampling = settings.sampling
    return naming.picture_name(
        *(sampling.scheme, settings.max_frames, settings.step_size, settings.T, sampling.n_obs),
        optimality=sampling.optimality or None,
        index=index,
        refactored=sampling.visualise == "refactored",
    )


def schedule_picture(steps, T: int, given, *, video: int = 0, small: bool = False) -> np.ndarray:
    """uint8 (h, w, 3) picture of the `Step`s of a video of T frames.

    Args:
      given: frames that exist at the start.
      video: whose observed frames to show, for adaptive schemes.
      small: one pixel a frame (existing dark red, observed red, latent blue), black rows between.
    """
    colour = _small_row if small else _row
    existing, rows = set(given), []
    for step in steps:
        existing |= set(step.latent)
        rows.append(colour(T, sorted(existing), step.rows(video + 1)[video], step.latent))
    rows = np.stack(rows)
    return _separate(rows) if small else _grid(rows)


def _row(T, existing, observed, latent):
    row = np.full((T, 3), MISSING, np.uint8)
    for frames, colour in ((existing, EXISTING), (observed, OBSERVED), (latent, LATENT)):
        row[frames] = colour
    return row


def _small_row(T, existing, observed, latent):
    row = np.zeros((T, 3), np.uint8)
    row[existing, 0] = 50
    row[observed, 0] = 255
    row[latent, 2] = 255
    return row


def _separate(rows):
    picture = np.zeros((2 * len(rows) + 1, rows.shape[1], 3), np.uint8)
    picture[1::2] = rows
    return picture


def _grid(rows):
    size = CELL + 1
    picture = np.zeros((size * rows.shape[0] + 1, size * rows.shape[1] + 1, 3), np.uint8)
    cells = rows.repeat(size, axis=0).repeat(size, axis=1)
    picture[:-1, :-1] = cells
    picture[::size], picture[:, ::size] = BORDER, BORDER
    return picture
