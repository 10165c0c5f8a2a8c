"""Reads folders of torch.distributed.checkpoint without torch, and without running their pickles.

Such a folder holds `.metadata`, a pickle that says where each part of each tensor is, and `.distcp`
files that are `torch.save` archives of the parts, one after another.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from jaxvid.core.torch_names import Record, TorchFileError
from jaxvid.core.torch_pickle import unpickle
from jaxvid.core.torch_zip import MAX_PICKLE, read_archive

METADATA = ".metadata"
MODULE = "torch.distributed.checkpoint."
CLASSES = (
    *("metadata Metadata", "metadata MetadataIndex", "metadata StorageMeta"),
    *("metadata TensorProperties", "metadata TensorStorageMetadata"),
    *("metadata BytesStorageMetadata", "metadata ChunkStorageMetadata", "filesystem _StorageInfo"),
)
OTHERS = (  # named, but of no use here
    f"{MODULE}metadata _MEM_FORMAT_ENCODING",
    "torch.serialization _get_layout",
    "pathlib PosixPath",
    "pathlib._local PosixPath",
)
FUNCTIONS = {MODULE + name: lambda: Record() for name in CLASSES} | {
    name: lambda *_: None for name in OTHERS
}


def load(folder: Path) -> Mapping[str, np.ndarray]:
    """The tensors of a folder, by name; each is put together when it is asked for.

    What is no tensor is left out: steps, byte streams and the like.

    Raises:
      TorchFileError: no such folder, or a broken one; always one line that names it.
    """
    folder = Path(folder).expanduser()
    with _named(folder):
        return _Folder(folder)


@contextlib.contextmanager
def _named(folder: Path):
    """Puts the folder before what goes wrong in it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise TorchFileError(f"{folder}: cannot be read: {reason}") from error
    except TorchFileError as error:
        line = " ".join(str(error).split())
        raise TorchFileError(f"{folder}: {line}") from error.__cause__


class _Folder(Mapping):
    """Name to array, read when asked for."""

    def __init__(self, folder: Path):
        self.folder, self.files = folder, {}
        metadata = _metadata(folder)
        self.tensors = {
            name: entry
            for name, entry in _dict(metadata, "state_dict_metadata").items()
            if isinstance(entry, Record) and "chunks" in entry
        }
        self.places = {}
        for index, place in _dict(metadata, "storage_data").items():
            if not isinstance(index, Record) or not isinstance(place, Record):
                raise TorchFileError(f"its {METADATA} says in an unknown way where tensors are")
            self.places[index.get("fqn"), _numbers(index.get("offset") or ())] = place

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self.tensors[name]
        with _named(self.folder):
            shape = _numbers(entry.get("size"))
            chunks = [_chunk(chunk) for chunk in entry["chunks"]]
            distinct = {offsets: math.prod(sizes) for offsets, sizes in chunks}
            if sum(distinct.values()) != math.prod(shape):
                raise TorchFileError(f"the parts of {name} do not make up its shape {shape}")
            parts = [(*chunk, self._part(name, *chunk)) for chunk in chunks]
            if len(parts) == 1:
                return parts[0][2].reshape(shape)
            return _assembled(name, shape, parts)

    def _part(self, name: str, offsets: tuple, sizes: tuple) -> np.ndarray:
        place = self.places.get((name, offsets))
        if place is None and not any(offsets):
            place = self.places.get((name, ()))
        if place is None:
            raise TorchFileError(f"it does not say where the part of {name} at {offsets} is")
        if place.get("transform_descriptors"):
            raise TorchFileError(f"{name} is stored compressed, which is not read: save it plain")
        array = read_archive(self._bytes(place))
        if not isinstance(array, np.ndarray) or array.shape != sizes:
            raise TorchFileError(f"the part of {name} at {offsets} is no tensor of shape {sizes}")
        return array

    def _bytes(self, place: Record) -> np.ndarray:
        match place:
            case {"relative_path": str(file), "offset": int(start), "length": int(length)}:
                pass
            case _:
                raise TorchFileError(f"its {METADATA} names a place in an unknown way")
        if Path(file).name != file or not file.endswith(".distcp"):
            raise TorchFileError(f"it names {file[:100]!r}, which is no .distcp file in it")
        if file not in self.files:
            self.files[file] = np.asarray(np.memmap(self.folder / file, np.uint8, "r"))
        raw = self.files[file]
        if not 0 <= start < start + length <= len(raw):
            raise TorchFileError(f"{file} has {len(raw)} bytes: it is cut off or of another folder")
        return raw[start : start + length]


def _metadata(folder: Path) -> Record:
    path = folder / METADATA
    if not folder.is_dir():
        raise TorchFileError("there is no such folder")
    if not path.is_file():
        raise TorchFileError(
            f"it has no {METADATA}: give the folder of the .distcp files, such as iter_*/model"
        )
    if path.stat().st_size > MAX_PICKLE:
        raise TorchFileError(f"its {METADATA} is too large to be a description of tensors")
    metadata = unpickle(path.read_bytes(), FUNCTIONS, _no_storage)
    if not isinstance(metadata, Record):
        raise TorchFileError(f"its {METADATA} describes no checkpoint")
    return metadata


def _no_storage(identity):
    raise TorchFileError(f"its {METADATA} holds tensors itself")


def _dict(record: Record, name: str) -> dict:
    if not isinstance(record.get(name), dict):
        raise TorchFileError(f"its {METADATA} has no {name}")
    return record[name]


def _numbers(values) -> tuple[int, ...]:
    if type(values) is not tuple or not all(type(n) is int and n >= 0 for n in values):
        raise TorchFileError(f"its {METADATA} has a size that is no size")
    return values


def _chunk(chunk) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Offsets and sizes of a part."""
    if not isinstance(chunk, Record):
        raise TorchFileError(f"its {METADATA} describes a part in an unknown way")
    return _numbers(chunk.get("offsets")), _numbers(chunk.get("sizes"))


def _assembled(name: str, shape: tuple[int, ...], parts: list) -> np.ndarray:
    """One array of parts (offsets, sizes, array)."""
    whole = np.empty(shape, parts[0][2].dtype)
    for offsets, sizes, part in parts:
        ends = [start + size for start, size in zip(offsets, sizes, strict=True)]
        if len(ends) != len(shape) or any(end > n for end, n in zip(ends, shape, strict=True)):
            raise TorchFileError(f"the part of {name} at {offsets} is outside its shape {shape}")
        if part.dtype != whole.dtype:
            raise TorchFileError(f"the parts of {name} have different types")
        whole[tuple(map(slice, offsets, ends))] = part
    return whole
