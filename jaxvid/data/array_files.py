"""Videos kept one to a file as uint8 arrays, in the folders that FDM's code reads.

mazes_cwvae and minerl: `<root>/{train,test}/<i>.npy`. CARLA: `<root>/video_<n>.pt` with the splits
in `video_train.csv` and `video_test.csv`.
"""

import re
from pathlib import Path

import numpy as np

from jaxvid.data.folders import DataFolder
from jaxvid.data.source import Source, check_array


class NpyFolder(Source):
    """The .npy files of one folder, each uint8 (t, h, w, 3), in the order of their numbers."""

    def __init__(self, folder: str | Path):
        self.folder = DataFolder(folder)
        self.where = str(self.folder.path)
        self.paths, self.ignored = self.folder.files((".npy",))
        if not self.paths:
            raise ValueError(f"{self.where}: no .npy files; expected 0.npy, 1.npy, ...")

    def __len__(self):
        return len(self.paths)

    def name(self, i):
        return self.paths[i].stem

    def place(self, i):
        return str(self.paths[i])

    def open(self, i):
        path = self.folder.local(self.paths[i])
        return check_array(load_npy(path), path)


class CarlaFolder(Source):
    """CARLA drives: torch files of uint8 (t, 128, 128, 3), with positions in `coords_<n>.npy`.

    The csv files name the videos of each split, by base name, in lines `<i>,<path>`. Without them
    the videos are sorted by number and the last `held_out` are the test split, which is how the
    csv files were made.
    """

    def __init__(self, folder: str | Path, split: str, held_out: int = 100):
        self.folder = DataFolder(folder)
        self.where = str(self.folder.path)
        found, others = self.folder.files((".pt", ".csv", ".npy"))
        kept = [path for path in found if re.fullmatch(r"(video|coords)_\w+", path.stem)]
        self.ignored = others + len(found) - len(kept)
        table = self.folder.path / f"video_{split}.csv"
        if table.is_file():
            lines = self.folder.local(table).read_text().splitlines()
            names = [re.split("[/,]", line.rstrip())[-1] for line in lines if ".pt" in line]
            self.paths = [self.folder.path / name for name in names]
        else:
            videos = [path for path in kept if re.fullmatch(r"video_\d+\.pt", path.name)]
            cut = max(0, len(videos) - held_out)
            self.paths = videos[cut:] if split == "test" else videos[:cut]
        if not self.paths:
            rule = table.name if table.is_file() else f"video_<n>.pt, the last {held_out} are test"
            raise ValueError(f"{self.where}: no {split} videos by its {rule}")

    def __len__(self):
        return len(self.paths)

    def name(self, i):
        return self.paths[i].stem

    def place(self, i):
        return str(self.paths[i])

    def open(self, i):
        path = self.paths[i]
        if not path.exists():
            raise ValueError(f"{path}: listed in video_{self.split}.csv, but there is no such file")
        from jaxvid.core import torch_file

        path = self.folder.local(path)
        return check_array(torch_file.load(path), path)

    def labels(self, i):
        """coords (t, c): world coordinates, if the file is there."""
        self._check_index(i)
        number = self.name(i).removeprefix("video_")
        path = self.folder.path / f"coords_{number}.npy"
        return {"coords": load_npy(self.folder.local(path))} if path.exists() else {}


def load_npy(path: Path) -> np.ndarray:
    """Maps a .npy file; nothing is read until it is sliced.

    Raises:
      ValueError: empty, cut off or not an array.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else "unreadable"
        raise ValueError(f"{path}: not a whole .npy array ({reason})") from None
