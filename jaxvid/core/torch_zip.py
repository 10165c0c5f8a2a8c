"""The zip archive that `torch.save` writes: one pickle, and one raw entry per storage."""

import io
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxvid.core.torch_names import StorageType, TorchFileError
from jaxvid.core.torch_pickle import unpickle

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
MAX_PICKLE = 2**28  # bytes; the pickle of a 12 GB checkpoint has about one million
MAX_EXPANDED = 2**24  # elements of a tensor that repeats its storage (an expanded one)


class Storage(NamedTuple):
    """Raw numbers that tensors are views of."""

    values: np.ndarray  # (numel,), or bytes if `untyped`
    untyped: bool


def read_zip(path: Path) -> object:
    """The object saved in a zip `.pt`; its arrays are read-only views of the mapped file.

    Raises:
      TorchFileError: see `unpickle`; or the archive or a tensor is not sound.
    """
    return read_archive(np.asarray(np.memmap(path, np.uint8, "r")))


class _Reader(io.RawIOBase):
    """Bytes in memory, or mapped, as a file."""

    def __init__(self, raw: np.ndarray):
        self.raw, self.position = raw, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = (0, self.position, len(self.raw))[whence] + offset
        if self.position < 0:
            raise OSError("a place before the start of the file")
        return self.position

    def readinto(self, buffer) -> int:
        part = self.raw[self.position : self.position + len(buffer)]
        buffer[: len(part)] = part.tobytes()
        self.position += len(part)
        return len(part)


def read_archive(raw: np.ndarray) -> object:
    """`read_zip` of the bytes (n,) of a file, or of the part of one that is an archive."""
    try:
        with zipfile.ZipFile(io.BufferedReader(_Reader(raw))) as archive:
            entries = _entries(archive)
            root = _root(entries)
            if entries[f"{root}/data.pkl"].file_size > MAX_PICKLE:
                raise TorchFileError("its data.pkl is too large to be a description of tensors")
            pickle = archive.read(f"{root}/data.pkl")
            order = archive.read(f"{root}/byteorder") if f"{root}/byteorder" in entries else b""
    except (
        zipfile.BadZipFile,
        EOFError,
        ValueError,
        OSError,
        struct.error,
        LookupError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        if isinstance(error, TorchFileError):
            raise
        raise TorchFileError(f"its zip archive is broken or truncated ({error})") from error
    if order not in (b"", b"little"):
        raise TorchFileError(f"its byte order is {order[:20]!r}, only little-endian is read")
    return unpickle(pickle, TENSORS, _Storages(root, entries, raw))


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    entries = {}
    for entry in archive.infolist():
        if entry.filename in entries:
            raise TorchFileError(f"its archive has two entries {entry.filename[:100]!r}")
        entries[entry.filename] = entry
    return entries


def _root(entries: dict) -> str:
    """The one folder of the archive, which holds data.pkl; refuses what torch.save never makes."""
    roots = [
        name.split("/")[0]
        for name in entries
        if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    if len(roots) != 1:
        raise TorchFileError("it is a zip archive without a data.pkl, so not written by torch.save")
    if f"{roots[0]}/constants.pkl" in entries:
        raise TorchFileError(
            "it is a TorchScript program, not tensors: in torch, load it with torch.jit.load and "
            "torch.save its state_dict()"
        )
    for entry in entries.values():
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise TorchFileError(
                f"its entry {entry.filename[:100]!r} is compressed or encrypted, which torch.save "
                "never does: load and save it again with torch"
            )
    return roots[0]


class _Storages:
    """Finds the storages that the pickle names; a shared one is made once."""

    def __init__(self, root: str, entries: dict, raw: np.ndarray):
        self.root, self.entries, self.raw = root, entries, raw
        self.known: dict[str, tuple[StorageType, int, Storage]] = {}

    def __call__(self, identity) -> Storage:
        match identity:
            case ("storage", StorageType(dtype), str(key), str(_), int(count), *rest):
                pass
            case _:
                raise TorchFileError("its pickle names a storage in an unknown way")
        if rest not in ([], [None]) or isinstance(count, bool) or count < 0:
            raise TorchFileError(f"its pickle gives storage {key[:50]!r} a size that is no size")
        if key in self.known:
            known_type, known_count, storage = self.known[key]
            if (known_type, known_count) != (StorageType(dtype), count):
                raise TorchFileError(f"its pickle gives storage {key[:50]!r} two types or sizes")
            return storage
        kind = np.dtype(np.uint8) if dtype is None else dtype
        data = self._data(key, count * kind.itemsize)
        storage = Storage(data.view(kind), dtype is None)
        self.known[key] = (StorageType(dtype), count, storage)
        return storage

    def _data(self, key: str, size: int) -> np.ndarray:
        entry = self.entries.get(f"{self.root}/data/{key}")
        if entry is None:
            raise TorchFileError(f"its storage {key[:50]!r} is missing from the archive")
        if size > entry.file_size:
            raise TorchFileError(
                f"its storage {key[:50]!r} has {entry.file_size} bytes, the pickle says {size}"
            )
        start = self._start(entry)
        if start + entry.file_size > len(self.raw):
            raise TorchFileError(f"its storage {key[:50]!r} goes past the end of the file")
        return self.raw[start : start + size]

    def _start(self, entry: zipfile.ZipInfo) -> int:
        """Where the data of an entry begins: after its own header, name and extra field."""
        header = bytes(self.raw[entry.header_offset :][: LOCAL_HEADER.size])
        if len(header) < LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
            raise TorchFileError(f"its entry {entry.filename[:100]!r} has no header")
        fields = LOCAL_HEADER.unpack(header)
        name_size, extra_size = fields[-2:]
        return entry.header_offset + LOCAL_HEADER.size + name_size + extra_size


def _tensor(storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None):
    """A view of a storage, checked to lie inside it."""
    if not isinstance(storage, Storage) or storage.untyped:
        raise TorchFileError("its pickle makes a tensor of something else than a typed storage")
    return _view(storage.values, offset, size, stride, metadata)


def _tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None):
    """A view of an untyped storage; `offset` counts elements of `dtype`."""
    if not isinstance(storage, Storage) or not isinstance(dtype, np.dtype):
        raise TorchFileError("its pickle makes a tensor of something else than a storage")
    data = storage.values.view(np.uint8)
    values = data[: len(data) // dtype.itemsize * dtype.itemsize].view(dtype)
    return _view(values, offset, size, stride, metadata)


def _view(values: np.ndarray, offset, size, stride, metadata) -> np.ndarray:
    if metadata:
        raise TorchFileError("it holds a conjugated or negated view: save tensor.resolve_conj()")
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride):
        raise TorchFileError("it holds a tensor whose size and stride are not two equal tuples")
    if len(size) > 32 or not all(type(n) is int for n in (offset, *size, *stride)):
        raise TorchFileError(
            "it holds a tensor whose offset, size or stride is not made of numbers"
        )
    where = f"it holds a tensor with offset {offset}, size {size} and stride {stride}"
    if min((offset, *size, *stride)) < 0:
        raise TorchFileError(f"{where}: negative numbers are not allowed")
    if 0 in size:
        return np.zeros(size, values.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if last >= len(values):
        raise TorchFileError(f"{where}, past the end of its storage of {len(values)}")
    if math.prod(size) > max(len(values), MAX_EXPANDED):
        raise TorchFileError(f"{where}: it repeats its storage too often")
    strides = tuple(step * values.itemsize for step in stride)
    start = offset * values.itemsize
    return np.ndarray(size, values.dtype, values.view(np.uint8), start, strides)


def _parameter(tensor, requires_grad=True, hooks=None, state=None):
    if not isinstance(tensor, np.ndarray):
        raise TorchFileError("its pickle makes a parameter of something else than a tensor")
    return tensor


TENSORS: dict[str, Callable] = {
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_v3,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
}
