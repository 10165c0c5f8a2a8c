"""`.safetensors`: eight bytes of header length, a JSON header, raw little-endian numbers."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np

from jaxvid.core.torch_names import TorchFileError

MAX_HEADER = 100_000_000  # bytes, the limit of the format itself
DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors by name, as read-only views of the mapped file.

    Raises:
      TorchFileError: the header is not sound, or its ranges overlap or do not fill the file.
    """
    raw = np.asarray(np.memmap(path, np.uint8, "r"))
    length = int.from_bytes(bytes(raw[:8]), "little")
    if len(raw) < 8 or length > min(MAX_HEADER, len(raw) - 8):
        raise TorchFileError(
            f"it has {len(raw)} bytes, too few for its header: broken or truncated"
        )
    header = read_json(bytes(raw[8 : 8 + length]))
    header.pop("__metadata__", None)
    data = raw[8 + length :]
    ranges = {name: _range(name, entry) for name, entry in header.items()}
    end = 0
    for name in sorted(ranges, key=lambda name: ranges[name]):
        if ranges[name][0] != end:
            raise TorchFileError(f"its tensor {name[:100]!r} overlaps another or leaves a hole")
        end = ranges[name][1]
    if end != len(data):
        raise TorchFileError(f"its tensors end at byte {end} of {len(data)}: broken or truncated")
    return {name: _array(data, header[name], *ranges[name]) for name in header}


def read_json(data: bytes) -> dict:
    """A JSON object without repeated names."""

    def unique(pairs):
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a name occurs twice")
        return found

    try:
        header = json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise TorchFileError(f"its header is not valid JSON ({error})") from error
    if not isinstance(header, dict):
        raise TorchFileError("its header is not a JSON object")
    return header


def _range(name: str, entry) -> tuple[int, int]:
    """The bytes of one tensor, checked against its shape and type."""
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise TorchFileError(f"its header does not describe {name[:100]!r}")
    if kind not in DTYPES:
        raise TorchFileError(f"its tensor {name[:100]!r} has the unknown type {kind[:20]!r}")
    size = np.dtype(DTYPES[kind]).itemsize
    for n in shape:
        if type(n) is not int or n < 0:
            raise TorchFileError(f"its tensor {name[:100]!r} has the shape {str(shape)[:100]}")
        size *= n
    if len(shape) > 32 or start < 0 or end - start != size:
        raise TorchFileError(f"its tensor {name[:100]!r} is not as large as its shape says")
    return start, end


def _array(data: np.ndarray, entry: dict, start: int, end: int) -> np.ndarray:
    shape = tuple(entry["shape"])
    return data[start:end].view(DTYPES[entry["dtype"]]).reshape(shape)
