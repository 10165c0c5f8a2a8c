"""The file format of torch < 1.6, in which many public weights still come.

Five pickles (a magic number, the protocol version, the writer's type sizes, the object, the
list of its storages), then each storage as its length and its raw numbers. The pickles are read
by the same restricted reader as those of zip files.
"""

import pickletools
from pathlib import Path

import numpy as np

from jaxvid.core.torch_names import StorageType, TorchFileError
from jaxvid.core.torch_pickle import unpickle
from jaxvid.core.torch_zip import TENSORS, Storage

START = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # the pickled magic number
PROTOCOL = 1001
COUNT = np.dtype("<i8")


def read_legacy(path: Path) -> object:
    """The object saved in the file; its arrays are read-only views of the mapped file.

    Raises:
      TorchFileError: the file is cut off or broken, or asks for more than tensors and plain
        containers.
    """
    raw = np.asarray(np.memmap(path, np.uint8, "r"))
    pickles, end = split_pickles(raw)
    if unpickle(pickles[1], {}, no_storage) != PROTOCOL:
        raise TorchFileError(f"its protocol is not {PROTOCOL}")
    writer = unpickle(pickles[2], {}, no_storage)
    if not isinstance(writer, dict) or writer.get("little_endian") is not True:
        raise TorchFileError("its numbers are not little-endian")
    keys = unpickle(pickles[4], {}, no_storage)
    storages = find_storages(raw, end, keys, named_storages(pickles[3]))
    return unpickle(pickles[3], TENSORS, lambda identity: storages[identity[2]])


def split_pickles(raw: np.ndarray) -> tuple[list[bytes], int]:
    """The five pickles, and where the storages start."""
    pickles, start = [], 0
    view = memoryview(raw)
    for _ in range(5):
        end = start + pickle_length(view[start:])
        pickles.append(bytes(view[start:end]))
        start = end
    return pickles, start


def pickle_length(view: memoryview) -> int:
    """Bytes of the pickle at the start of `view`."""
    size = 2**16
    while True:
        try:
            *_, (_, _, last) = pickletools.genops(bytes(view[:size]))
            return last + 1
        except (ValueError, IndexError) as error:
            if size >= len(view):
                raise TorchFileError("its pickle is broken or cut off") from error
            size *= 16  # the pickle of a large model, or a broken one


def named_storages(data: bytes) -> dict[str, tuple[np.dtype, int]]:
    """Type and number of elements of every storage that the object's pickle names."""
    found = {}

    def record(identity):
        match identity:
            case ("storage", StorageType(np.dtype() as dtype), str(key), str(_), int(count), None):
                found[key] = (dtype, count)
            case _:
                raise TorchFileError("its pickle names a storage in an unknown way")

    unpickle(data, dict.fromkeys(TENSORS, lambda *args: None), record)
    return found


def find_storages(
    raw: np.ndarray, start: int, keys: list, named: dict[str, tuple[np.dtype, int]]
) -> dict[str, Storage]:
    """Views of the storages, which lie one after the other in the order of `keys`."""
    if not isinstance(keys, list) or sorted(map(repr, keys)) != sorted(map(repr, named)):
        raise TorchFileError("its list of storages is not that of its tensors")
    storages = {}
    for key in keys:
        dtype, count = named[key]
        body = start + COUNT.itemsize
        end = body + count * dtype.itemsize
        if count < 0 or end > len(raw):
            raise TorchFileError(f"it is cut off: storage {key[:50]!r} goes past its end")
        if raw[start:body].view(COUNT)[0] != count:
            raise TorchFileError(f"its storage {key[:50]!r} is not as long as the pickle says")
        storages[key] = Storage(raw[body:end].view(dtype), untyped=False)
        start = end
    return storages


def no_storage(identity):
    raise TorchFileError("it names a storage where there is none")
