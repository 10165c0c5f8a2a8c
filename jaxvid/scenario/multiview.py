"""Cameras as views of the multiview model: its spec file, and one picture of all of them."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from jaxvid.core.video import read_video
from jaxvid.core.views import CAMERAS

VIEWS = {camera: view for view, camera in CAMERAS.items()}  # in the order of the view ids
LAYOUT = (  # what lies beside what around the vehicle
    (
        "camera_cross_left_120fov",
        "camera_front_wide_120fov",
        "camera_front_tele_30fov",
        "camera_cross_right_120fov",
    ),
    ("camera_rear_left_70fov", "camera_rear_tele_30fov", "camera_rear_right_70fov"),
)
PROMPT = (
    "The video is captured from a camera mounted on a car. It drives through a city on a clear "
    "day, with other vehicles, cyclists and people on the pavements."
)
FPS = 10  # of the model's training
CHUNK = 29  # frames the model makes at least
TILE = 480  # pixels, the width of a picture on the sheet
GAP = 4


def multiview_spec(
    clip: str, videos: Mapping[str, str], fps: float, frames: int, prompt: str = ""
) -> tuple[dict, list[str]]:
    """The spec file of the multiview mode that makes a clip from its control videos alone.

    Args:
      videos: control video of each camera, relative to the spec file.
      fps, frames: of those videos.
    Returns:
      The JSON object, and lines that tell what it leaves out or what will not run.
    """
    notes = [f"{name} is no view of the multiview model" for name in videos if name not in VIEWS]
    views = {key: {"control_path": videos[n]} for n, key in VIEWS.items() if n in videos}
    if not views:
        notes.append("the multiview spec has no view, so it will be refused")
    rate = _model_rate(fps)
    if rate is None:
        notes.append(f"{fps:g} fps is no whole number: the multiview mode cannot thin that out")
    elif frames // round(fps / rate) < CHUNK:
        found = frames // round(fps / rate)
        notes.append(f"{found} frames at {rate} fps: the multiview mode needs {CHUNK} or more")
    spec = {
        "name": clip,
        "prompt": prompt or PROMPT,
        "num_conditional_frames": 0,  # nothing but text and control
        "fps": rate or max(round(fps), 1),
    }
    return spec | views, notes


def _model_rate(fps: float) -> int | None:
    """The rate at most as high as `fps`, and dividing it, that is nearest to the model's."""
    if fps < 1 or fps != int(fps):
        return None
    rates = [rate for rate in range(1, int(fps) + 1) if fps % rate == 0]
    return min(rates, key=lambda rate: abs(math.log(rate / FPS)))


def contact_sheet(pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    """uint8 (h, w, 3) pictures by camera, on one sheet with their names, as they look around.

    Cameras without a place of their own come in rows of four below.
    """
    rows = [[name for name in row if name in pictures] for row in LAYOUT]
    others = [name for name in pictures if not any(name in row for row in LAYOUT)]
    rows += [others[i : i + 4] for i in range(0, len(others), 4)]
    tiles = [[_tile(name, pictures[name]) for name in row] for row in rows if row]
    bands = [_beside(row, axis=1) for row in tiles]
    width = max(band.shape[1] for band in bands)
    return _beside([_centred(band, width) for band in bands], axis=0)


def _tile(name: str, picture: np.ndarray) -> np.ndarray:
    size = TILE, max(round(TILE * picture.shape[0] / picture.shape[1]), 1)
    image = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    ImageDraw.Draw(image).text((8, 6), name.removeprefix("camera_"), fill=(255, 255, 255))
    return np.asarray(image)


def _beside(parts: list[np.ndarray], axis: int) -> np.ndarray:
    shape = list(parts[0].shape)
    shape[axis] = GAP
    line = np.full(shape, 64, np.uint8)
    return np.concatenate([x for part in parts for x in (line, part)][1:], axis=axis)


def _centred(band: np.ndarray, width: int) -> np.ndarray:
    left = (width - band.shape[1]) // 2
    return np.pad(band, ((0, 0), (left, width - band.shape[1] - left), (0, 0)))


def sheet_of_videos(videos: Mapping[str, Path], index: int) -> np.ndarray:
    """The contact sheet of frame `index` of finished videos."""
    return contact_sheet({name: read_video(path, index, 1)[0] for name, path in videos.items()})
