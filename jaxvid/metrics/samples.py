"""The samples of an evaluation folder: which there are, checked before anything is computed.

Layout: `samples/sample_<video:04d>-<sample>.npy`, uint8 (T, 3, H, W); `model_config.json`.
"""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np

NAME = re.compile(r"sample_(\d+)-(\d+)\.npy")


@dataclasses.dataclass(frozen=True)
class Samples:
    """The sample files to evaluate: `samples` of each video, in the order of their index.

    Upstream takes them in the order in which the file system lists them.
    """

    folder: Path
    files: dict[int, tuple[Path, ...]]  # by video index, ascending
    frames: int  # frames to evaluate, at most those of the files
    height: int
    width: int

    @property
    def videos(self) -> list[int]:
        return list(self.files)

    @property
    def per_video(self) -> int:
        return len(next(iter(self.files.values())))

    @property
    def name(self) -> str:
        """Upstream's name of the results: metrics_<videos>-<samples per video>-<frames>."""
        return f"metrics_{len(self.files)}-{self.per_video}-{self.frames}"

    def load(self, video: int, sample: int) -> np.ndarray:
        """One sample, uint8 (t, h, w, 3)."""
        stored = np.load(self.files[video][sample], mmap_mode="r")
        return np.ascontiguousarray(np.moveaxis(stored[: self.frames], 1, -1))


def find_samples(
    eval_dir: str | Path, num_samples: int | None = None, frames: int | None = None
) -> Samples:
    """Lists and checks the samples of an evaluation folder, reading only file headers.

    Args:
      eval_dir: the folder that holds `samples/`.
      num_samples: samples of each video to use; None = as many as the first video has.
      frames: frames to use; None = all.
    Raises:
      ValueError: no folder or samples, too few samples, other types or unequal shapes, fewer
        frames than asked for.
    """
    folder = Path(eval_dir).expanduser()
    found = list_samples(folder)
    count = num_samples or len(next(iter(found.values())))
    for video, paths in found.items():
        if len(paths) < count:
            raise ValueError(
                f"video {video} has {len(paths)} samples, {count} are needed: "
                f"sample it again or use --num_samples={min(len(p) for p in found.values())}"
            )
    return checked(folder, {video: tuple(paths[:count]) for video, paths in found.items()}, frames)


def checked(folder: Path, files: dict[int, tuple[Path, ...]], frames: int | None) -> Samples:
    """Samples of these files, after reading their headers; see `find_samples`."""
    length, height, width = common_shape([p for paths in files.values() for p in paths])
    if frames is not None and not 1 <= frames <= length:
        raise ValueError(f"T={frames} is not within the samples' {length} frames")
    return Samples(folder, files, frames or length, height, width)


def list_samples(eval_dir: Path) -> dict[int, list[Path]]:
    """Sample files by video index, both indices ascending.

    Raises:
      ValueError: no folder `samples/`, nothing in it, or a file of another name.
    """
    folder = eval_dir / "samples"
    if not folder.is_dir():
        raise ValueError(f"{eval_dir} has no folder samples/: not an evaluation folder")
    numbered = []
    for path in folder.glob("sample_*.npy"):
        match = NAME.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path} is not named sample_<video>-<sample>.npy")
        numbered.append((int(match[1]), int(match[2]), path))
    if not numbered:
        raise ValueError(f"{folder} holds no sample_<video>-<sample>.npy")
    found: dict[int, list[Path]] = {}
    for video, _, path in sorted(numbered):
        found.setdefault(video, []).append(path)
    return found


def common_shape(paths: list[Path]) -> tuple[int, int, int]:
    """Frames, height and width that all files share."""
    first = None
    for path in paths:
        shape = stored_shape(path)
        if first is None:
            first = shape
        elif shape != first:
            raise ValueError(f"{path} is {shape}, but {paths[0].name} is {first}: sizes differ")
    frames, _, height, width = first
    return frames, height, width


def stored_shape(path: Path) -> tuple[int, ...]:
    """Shape of a sample file, from its header."""
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read as .npy ({error}): sample it again") from None
    if stored.dtype != np.uint8 or stored.ndim != 4 or stored.shape[1] != 3:
        raise ValueError(f"{path} is {stored.dtype} {stored.shape}, not uint8 (T, 3, H, W)")
    return stored.shape


def model_config(eval_dir: str | Path) -> dict:
    """The training arguments that sampling stored beside the samples; {} if there are none."""
    path = Path(eval_dir).expanduser() / "model_config.json"
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error})") from None
