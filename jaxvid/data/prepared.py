"""Datasets that TFDS has written to array_record files, opened without TensorFlow."""

import hashlib
from pathlib import Path

import numpy as np

from jaxvid.data.source import Source

ENDS = 2**20  # bytes of a file's start and end that its hash is made of


class PreparedSource(Source):
    """One split of `<data_dir>/<builder>/<version>`, the newest version; see `builders`.

    A record is a whole video, so reading a part of one costs as much as reading all of it.
    """

    def __init__(self, data_dir: str | Path, builder: str, split: str):
        import tensorflow_datasets as tfds  # slow to import; only prepared data needs it

        folder = Path(data_dir).expanduser() / builder
        versions = sorted(path.parent for path in folder.glob("*/dataset_info.json"))
        if not versions:
            command = f"python -m jaxvid.data.prepare --name=NAME --data_dir={data_dir}"
            raise ValueError(f"{folder}: no prepared dataset; make it with: {command}")
        self.where = str(versions[-1])
        prepared = tfds.builder_from_directory(self.where)
        if split not in prepared.info.splits:
            raise ValueError(f"{self.where}: no split {split}, only {list(prepared.info.splits)}")
        self.records = prepared.as_data_source(split)
        packed = {"video": tfds.decode.SkipDecoding()}  # which takes most of the time
        self._notes = prepared.as_data_source(split, decoders=packed)

    def __len__(self):
        return len(self.records)

    def name(self, i):
        return self._notes[i]["name"].decode()

    def open(self, i):
        return self.records[i]["video"]

    def version(self) -> str:
        """Of the sizes and the ends of all files, which hold the indices of their records."""
        digest = hashlib.sha256()
        for path in sorted(Path(self.where).iterdir()):
            digest.update(f"{path.name} {path.stat().st_size} ".encode())
            with open(path, "rb") as file:
                digest.update(file.read(ENDS))
                file.seek(max(0, path.stat().st_size - ENDS))
                digest.update(file.read())
        return digest.hexdigest()

    def labels(self, i) -> dict[str, np.ndarray]:
        """Whatever else the record holds."""
        self._check_index(i)
        return {k: v for k, v in self._notes[i].items() if k not in ("video", "name")}

    def shortest(self) -> int:
        """Frames of the shortest video; reads all of them."""
        return min(self.length(i) for i in range(len(self)))

    def frame_rate(self) -> float:
        raise ValueError(f"{self.where}: prepared videos have lost their frame rate; set fps")
