"""TFDS builders: each dataset as array_record files, one record a video.

Neither writing nor reading them needs TensorFlow: the frames are a zlib-compressed tensor (TFDS's
`Video` feature encodes frames with TensorFlow), and archives are unpacked by `archives`.
"""

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jaxvid.data.archives import unpack
from jaxvid.data.sources import DATASETS, SPLITS, DataConfig, open_source

MAX_BYTES = 2**30  # frames of one video before compression; a record cannot exceed 2 GiB

# Fields of DataConfig that decide what is written.
CONTENT_FIELDS = ("name", "root", "size", "resize", "seed", "train_videos", "test_videos")


class VideoBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the videos of a `Source` as records {"video", "name"} and their labels."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None  # where TFDS would look for checksums, with a package it fails to require
    DATASET = ""  # a key of DATASETS
    URL = ""  # of an archive
    LABELS: ClassVar[dict] = {}  # name -> (shape, dtype); None stands for the number of frames

    def __init__(self, *, data: DataConfig | None = None, **kwargs):
        """data: its `root` is the unpacked data, "" to download them; also `size`, `resize`, ..."""
        self._data = data or DataConfig(name=self.DATASET)
        super().__init__(file_format="array_record", **kwargs)

    def _info(self):
        size = self._data.size or DATASETS[self.DATASET].size
        video = tfds.features.Tensor(shape=(None, size, size, 3), dtype=np.uint8, encoding="zlib")
        labels = {
            name: tfds.features.Tensor(shape=shape, dtype=dtype)
            for name, (shape, dtype) in self.LABELS.items()
        }
        features = {"video": video, "name": tfds.features.Text(), **labels}
        return tfds.core.DatasetInfo(
            builder=self,
            description=(type(self).__doc__ or "").strip(),
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # video i of the source is record i
        )

    def _split_generators(self, dl_manager):
        config = dataclasses.replace(self._data, prepared="", frames=1, fps=1.0)
        if self.URL and not config.root:
            archive = Path(dl_manager.download(self.URL))
            folder = unpack(archive, archive.with_name(f"{archive.name}-unpacked"))
            config = dataclasses.replace(config, root=str(folder))
        sources = {split: open_source(self._config(config), split) for split in SPLITS}
        return {split: self._generate_examples(source) for split, source in sources.items()}

    def _generate_examples(self, source):
        for i in range(len(source)):
            frames = source.length(i)
            if frames * source.size**2 * 3 > MAX_BYTES:
                where = f"{source.where}/{source.name(i)}"
                limit = f"the {MAX_BYTES} bytes of a record"
                raise ValueError(f"{where}: {frames} frames exceed {limit}; cut it into pieces")
            labels = {name: a for name, a in source.labels(i).items() if name in self.LABELS}
            yield i, {"video": source.whole(i), "name": source.name(i), **labels}

    def _config(self, config: DataConfig) -> DataConfig:
        """Where in the data the videos are."""
        return config


class MazeWalk(VideoBuilder):
    """First-person walks through random textured mazes, rendered here."""

    DATASET = "maze_walk"
    LABELS: ClassVar[dict] = {"actions": ((None,), np.uint8), "poses": ((None, 3), np.float32)}


class OwnVideos(VideoBuilder):
    """A folder of the user's video files."""

    DATASET = "videos"


class Mp4Splits(VideoBuilder, skip_registration=True):
    """Folders train/ and test/ of .mp4 files, perhaps inside one other folder."""

    def _config(self, config):
        root = _folder_with(Path(config.root), "test/*.mp4")
        size = config.size or DATASETS[self.DATASET].size
        return dataclasses.replace(config, name="videos", root=str(root), size=size)


class GqnMazes(Mp4Splits):
    """DeepMind's GQN mazes as videos of 300 frames of 64x64 (arXiv:2102.09532)."""

    DATASET = "mazes_cwvae"
    URL = "https://archive.org/download/gqn_mazes/gqn_mazes.zip"


class MinerlNavigate(Mp4Splits):
    """People finding their way in Minecraft: 961 and 225 videos of 500 frames (arXiv:2102.09532).

    The actions that lie beside the videos are not kept.
    """

    DATASET = "minerl"
    URL = "https://archive.org/download/minerl_navigate/minerl_navigate.zip"


class CarlaNoTraffic(VideoBuilder):
    """Drives through CARLA's Town01 without other cars, at least 1000 frames of 128x128 each."""

    DATASET = "carla_no_traffic"
    URL = "https://www.cs.ubc.ca/~wsgh/fdm/carla/no-traffic.tar.gz"

    def _config(self, config):
        root = _folder_with(Path(config.root), "video_*.pt")
        return dataclasses.replace(config, root=str(root))


class CarlaWithTraffic(CarlaNoTraffic):
    """The same with other cars; no public download."""

    DATASET = "carla_with_traffic"
    URL = ""


class CarlaTown02NoTraffic(CarlaNoTraffic):
    """The same in Town02; no public download."""

    DATASET = "carla_town02_no_traffic"
    URL = ""


BUILDERS = {
    builder.DATASET: builder
    for builder in (
        MazeWalk,
        OwnVideos,
        GqnMazes,
        MinerlNavigate,
        CarlaNoTraffic,
        CarlaWithTraffic,
        CarlaTown02NoTraffic,
    )
}


def prepare(config: DataConfig, data_dir: str | Path) -> Path:
    """Writes a dataset under `data_dir` unless it is there; returns its folder.

    Afterwards `DataConfig(name, prepared=data_dir)` opens it.

    Raises:
      ValueError: it is there, but was made with another config.
    """
    builder = BUILDERS[config.name](data=config, data_dir=str(Path(data_dir).expanduser()))
    folder = Path(builder.data_path)
    made_with = folder / "jaxvid.json"
    text = json.dumps({name: getattr(config, name) for name in CONTENT_FIELDS}, indent=1)
    if folder.exists():
        if not made_with.exists() or made_with.read_text() != text:
            raise ValueError(f"{folder}: made with another config; remove it or change data_dir")
        return folder
    builder.download_and_prepare()
    made_with.write_text(text)
    return folder


def _folder_with(root: Path, pattern: str) -> Path:
    """`root` or the folder in it that holds files named so."""
    folders = [root, *sorted(path for path in root.glob("*") if path.is_dir())]
    found = [folder for folder in folders if any(folder.glob(pattern))]
    if not found:
        raise ValueError(f"{root}: no {pattern} in it or in a folder of it; set root to the data")
    return found[0]
