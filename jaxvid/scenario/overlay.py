"""Control videos over camera footage, to judge by eye whether the two are aligned."""

import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from jaxvid.core.video import VIDEO_SUFFIXES, VideoWriter, iter_video, probe

CLEAR = 32  # brightness from which the control covers the footage with its full share


def find_footage(folder: str | os.PathLike, clip: str, cameras: Iterable[str]) -> dict[str, Path]:
    """The footage of each camera that has some.

    Looked for as ftheta_CAMERA/CLIP.mp4, CAMERA/CLIP.mp4, CLIP.CAMERA.mp4 and CAMERA.mp4, or with
    another suffix of a video.
    Raises ValueError if there is none, or a file that is no video.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"--overlay={folder} is not a folder; give the one with camera videos")
    found = {}
    for name in cameras:
        stems = (f"ftheta_{name}/{clip}", f"{name}/{clip}", f"{clip}.{name}", name)
        paths = (folder / (stem + suffix) for stem in stems for suffix in VIDEO_SUFFIXES)
        path = next((path for path in paths if path.is_file()), None)
        if path:
            probe(path)
            found[name] = path
    if not found:
        raise ValueError(
            f"--overlay={folder} has footage of none of the cameras; name files CAMERA/{clip}.mp4 "
            f"or {clip}.CAMERA.mp4, e.g. {name}/{clip}.mp4"
        )
    return found


def write_overlay(
    control: Path, footage: Path, target: Path, first: int = 0, alpha: float = 0.6
) -> int:
    """Blends a control video over footage, which may have another size and frame rate.

    first: number of the control's first frame in the clip, whose start is that of the footage.
    alpha: share of the control where it is not black, in (0, 1].
    Returns:
      The number of frames: the video ends where either of the two ends.
    Raises ValueError if the footage has no frame at these times.
    """
    fps = probe(control).fps
    drawn = iter_video(control)
    with VideoWriter(target, fps) as writer:
        for picture, frame in zip(drawn, _at_rate(footage, fps, first), strict=False):
            writer.write(blend(picture, _resized(frame, picture.shape), alpha)[None])
        if not writer.frames:
            raise ValueError(f"{footage} ends before frame {first} of the control video")
    return writer.frames


def blend(control: np.ndarray, frame: np.ndarray, alpha: float) -> np.ndarray:
    """uint8 (h, w, 3) both; black parts of the control leave the frame as it is."""
    share = alpha * np.minimum(control.max(axis=-1, keepdims=True) / np.float32(CLEAR), 1)
    return np.rint((1 - share) * frame + share * control).astype(np.uint8)


def _at_rate(path: Path, fps: float, first: int) -> Iterator[np.ndarray]:
    """The frame of a video nearest to each of the times (first + i) / fps."""
    rate = probe(path).fps or fps
    wanted = (round((first + i) * rate / fps) for i in itertools.count())
    number = next(wanted)
    for index, frame in enumerate(iter_video(path)):
        while number == index:
            yield frame
            number = next(wanted)


def _resized(frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if frame.shape == shape:
        return frame
    size = shape[1], shape[0]
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
