"""The names a torch file's pickle may use, and the plain values they stand for.

Whatever is not in `ALLOWED` is refused. None of the functions here runs code of the file, asks for
memory that the file does not fill, or takes longer than the file is long.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import ml_dtypes
import numpy as np


class TorchFileError(ValueError):
    """A file that is broken, of another kind, or asks for what is not allowed; one line."""


class Global(NamedTuple):
    """What a name in the pickle stands for: `function` makes a value out of plain arguments."""

    name: str
    function: Callable


class Namespace(dict):
    """An `argparse.Namespace` as a dict."""


class Record(Namespace):
    """An object of a known class as a dict of its attributes; two are equal if they are one."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__
    __ne__ = object.__ne__


class Buffer(bytearray):
    """The contents of an `io.BytesIO`."""


class StorageType(NamedTuple):
    """A torch storage class; dtype None counts bytes (`UntypedStorage`)."""

    dtype: np.dtype | None


DTYPES = {
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "float8_e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "int64": np.dtype(np.int64),
    "int32": np.dtype(np.int32),
    "int16": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "uint16": np.dtype(np.uint16),
    "uint32": np.dtype(np.uint32),
    "uint64": np.dtype(np.uint64),
    "bool": np.dtype(np.bool_),
    "complex64": np.dtype(np.complex64),
    "complex128": np.dtype(np.complex128),
}
STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
}


PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, np.generic, np.dtype)


def _text_bytes(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise TypeError("only latin1 bytes")
    return text.encode("latin1")


def key(value):
    """`value` if it may be a key: hashing nested tuples can take for ever."""
    if isinstance(value, (*PLAIN, Record)) or (
        type(value) is tuple and all(isinstance(part, PLAIN) for part in value)
    ):
        return value
    raise TypeError(f"a {type(value).__name__} as a key")


def set_of(kind: type) -> Callable:
    return lambda values=(): kind(key(value) for value in values)


def _bytes(kind: type) -> Callable:
    """`kind()`, `kind(bytes)`, `kind(text, encoding)`; `kind(number)` may ask for any memory."""

    def make(data=b"", encoding=None):
        data = _text_bytes(data, encoding) if encoding is not None else data
        if not isinstance(data, bytes):
            raise TypeError("bytes made of something else")
        return kind(data)

    return make


def _ordered_dict(pairs=()) -> OrderedDict:
    return OrderedDict((key(name), value) for name, value in pairs)


def _device(kind: str, index: int | None = None) -> str:
    if not isinstance(kind, str) or not isinstance(index, int | None):
        raise TypeError("no device")
    return kind if index is None else f"{kind}:{index}"


def _numpy_dtype(code: str, align=False, copy=True) -> np.dtype:
    dtype = np.dtype(code) if isinstance(code, str) and len(code) <= 3 else np.dtype(object)
    if dtype.kind not in "biufc":
        raise TypeError("only numbers")
    return dtype


def _numpy_scalar(dtype: np.dtype, data: bytes) -> np.generic:
    if not isinstance(dtype, np.dtype):
        raise TypeError("a number without a type")
    if isinstance(data, str):  # how protocol 0 to 2 of Python 2 stored bytes
        data = data.encode("latin1")
    if len(data) != dtype.itemsize:
        raise TypeError("size of a number")
    return np.frombuffer(data, dtype)[0]


def _new_plain(kind, base, state):
    """copyreg._reconstructor, for namespaces written in protocol 0 or 1."""
    if not isinstance(kind, Global) or kind.name != "argparse Namespace" or state is not None:
        raise TypeError("only namespaces")
    return Namespace()


ALLOWED: dict[str, Callable | StorageType | np.dtype] = {
    "collections OrderedDict": _ordered_dict,
    "argparse Namespace": lambda: Namespace(),  # and no arguments
    "copyreg _reconstructor": _new_plain,
    "builtins object": lambda: None,
    "builtins bytes": _bytes(bytes),
    "builtins bytearray": _bytes(bytearray),
    "builtins set": set_of(set),
    "builtins frozenset": set_of(frozenset),
    "builtins complex": lambda real, imag: complex(float(real), float(imag)),
    "_codecs encode": _text_bytes,
    "_io BytesIO": lambda: Buffer(),
    "numpy dtype": _numpy_dtype,
    "numpy.core.multiarray scalar": _numpy_scalar,
    "numpy._core.multiarray scalar": _numpy_scalar,
    "torch Size": lambda sizes=(): tuple(sizes),
    "torch device": _device,
    **{f"torch {name}": dtype for name, dtype in DTYPES.items()},
    **{f"torch {name}": StorageType(DTYPES[dtype]) for name, dtype in STORAGES.items()},
    **{f"torch.cuda {name}": StorageType(DTYPES[dtype]) for name, dtype in STORAGES.items()},
    "torch UntypedStorage": StorageType(None),
    "torch.storage UntypedStorage": StorageType(None),
}
OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "io": "_io"}
