"""Writes the zip `.pt` that `torch.load(weights_only=True)` reads, without torch."""

import os
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from jaxvid.core.files import atomic_path
from jaxvid.core.torch_names import DTYPES, STORAGES

ALIGNMENT = 64  # of storages in the file, as torch does, so that they can be mapped
ROOT = "archive"
TORCH_DTYPES = {dtype: name for name, dtype in DTYPES.items()}
TORCH_STORAGES = {DTYPES[dtype]: storage for storage, dtype in STORAGES.items()}


class Parameter(NamedTuple):
    """Marks an array to be written as a `torch.nn.Parameter`."""

    array: np.ndarray


def save_pt(path: str | os.PathLike, obj) -> None:
    """Writes nested dicts, lists and tuples of arrays, `Parameter`s and plain values, atomically.

    Raises:
      ValueError: a value of another kind.
    """
    emitter = _Emitter()
    pickle = b"\x80\x02" + emitter.emit(obj) + b"."
    path = Path(path).expanduser()
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _write(archive, "data.pkl", pickle)
        _write(archive, "byteorder", b"little")
        for number, array in enumerate(emitter.arrays):
            _write(
                archive, f"data/{number}", np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            )
        _write(archive, "version", b"3\n")


def _write(archive: zipfile.ZipFile, name: str, data) -> None:
    """One uncompressed entry whose data start at a multiple of ALIGNMENT (below 2 GB)."""
    entry = zipfile.ZipInfo(f"{ROOT}/{name}")
    entry.file_size = len(data)
    header = archive.fp.tell() + 30 + len(entry.filename) + 4
    padding = -header % ALIGNMENT
    entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    with archive.open(entry, "w") as file:
        file.write(data)


class _Emitter:
    """Turns values into pickle instructions (protocol 2) and gathers the arrays."""

    def __init__(self):
        self.arrays: list[np.ndarray] = []

    def emit(self, value) -> bytes:
        if isinstance(value, np.generic) and value.dtype in TORCH_DTYPES:
            value = value.item()
        match value:
            case None:
                return b"N"
            case bool():
                return b"\x88" if value else b"\x89"
            case int():
                return _integer(value)
            case float():
                return b"G" + struct.pack(">d", value)
            case str():
                text = value.encode("utf-8", "surrogatepass")
                return b"X" + struct.pack("<I", len(text)) + text
            case Parameter(array):
                tensor = self.emit(np.asarray(array))
                return _call("torch._utils", "_rebuild_parameter", tensor, b"\x88", NO_HOOKS)
            case np.ndarray() | jax.Array():
                return self.tensor(np.asarray(value))
            case Mapping():
                empty = NO_HOOKS if isinstance(value, OrderedDict) else b"}"
                items = [self.emit(key) + self.emit(item) for key, item in value.items()]
                return empty + b"(" + b"".join(items) + b"u"
            case list():
                return b"](" + b"".join(map(self.emit, value)) + b"e"
            case tuple():
                return b"(" + b"".join(map(self.emit, value)) + b"t"
        raise ValueError(f"a {type(value).__name__} cannot be written to a .pt file")

    def tensor(self, array: np.ndarray) -> bytes:
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        if array.dtype not in TORCH_DTYPES:
            raise ValueError(f"torch has no tensors of type {array.dtype}")
        typed = TORCH_STORAGES.get(array.dtype)
        count = array.size if typed else array.nbytes
        storage = _global("torch", typed) if typed else _global("torch.storage", "UntypedStorage")
        number = str(len(self.arrays))
        self.arrays.append(array)
        words = [self.emit("storage"), storage, *map(self.emit, (number, "cpu", count))]
        identity = b"(" + b"".join(words) + b"tQ"
        strides = np.cumprod((1, *array.shape[:0:-1]))[::-1] if array.shape else ()
        shape = [self.emit(0), self.emit(array.shape), self.emit(tuple(map(int, strides)))]
        arguments = [identity, *shape, b"\x89", NO_HOOKS]
        if typed:
            return _call("torch._utils", "_rebuild_tensor_v2", *arguments)
        dtype = _global("torch", TORCH_DTYPES[array.dtype])
        return _call("torch._utils", "_rebuild_tensor_v3", *arguments, dtype)


def _integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _call(module: str, name: str, *arguments: bytes) -> bytes:
    return _global(module, name) + b"(" + b"".join(arguments) + b"tR"


NO_HOOKS = _global("collections", "OrderedDict") + b")R"
