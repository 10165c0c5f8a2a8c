"""Reads PyTorch's files without PyTorch, lazily, and without running what they contain.

`load` takes a `.pt`/`.pth` (a zip, or older than torch 1.6), a `.safetensors`, or the `.index.json`
of a sharded checkpoint. The arrays it returns are read-only views of the mapped file: a 12 GB file
costs memory only where its numbers are looked at. `save_pt` is the way back.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxvid.core.safetensors_file import read_json, read_safetensors
from jaxvid.core.torch_legacy import START, read_legacy
from jaxvid.core.torch_names import TorchFileError
from jaxvid.core.torch_save import Parameter, save_pt
from jaxvid.core.torch_zip import read_zip

__all__ = ["Parameter", "TorchFileError", "load", "load_all", "save_pt"]

SAVE_AGAIN = (
    "in torch, run torch.save(torch.load(FILE, map_location='cpu'), FILE) on a trusted file"
)
OTHERS = {
    b"\x1f\x8b": "gzip: gunzip it first",
    b"BZh": "bzip2: unpack it first",
    b"\xfd7zXZ": "xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "zstd: unpack it first",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run git lfs pull",
    b"<": "a web page, not the file itself: download it again",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "a .npy file: use numpy.load",
}


def load(path: str | os.PathLike):
    """The contents of a PyTorch or safetensors file.

    Returns:
      For `.pt`: the nested dicts, lists, tuples and plain values that were saved, tensors and
      parameters as numpy arrays (bfloat16 and float8 through ml_dtypes), namespaces as dicts,
      `torch.dtype`s as numpy dtypes, sizes as tuples. For `.safetensors` and indices: a dict.
    Raises:
      TorchFileError: no such file, another kind of file, a broken one, or one whose pickle asks
        for more than tensors and plain containers; always one line that names the file.
    """
    path = Path(path).expanduser()
    try:
        return _load(path)
    except OSError as error:
        raise TorchFileError(f"{path}: cannot be read: {error.strerror or error}") from error
    except TorchFileError as error:
        line = " ".join(str(error).split())
        raise TorchFileError(f"{path}: {line}") from error.__cause__


def load_all(sources: Sequence[str | os.PathLike]) -> dict:
    """The tensors of one file, of an index, or of several shards, in one mapping.

    Raises:
      ValueError: a file that holds no mapping, or a name that occurs in two of them.
    """
    merged: dict = {}
    for source in sources:
        state = load(source)
        if not isinstance(state, Mapping):
            raise ValueError(f"{source} holds {type(state).__name__}, not a state dict")
        if repeated := sorted(set(state) & set(merged)):
            raise ValueError(f"{source} repeats {repeated[0]} of an earlier source")
        merged |= state
    return merged


def _load(path: Path):
    if not path.exists():
        raise TorchFileError("there is no such file")
    if not path.is_file():
        raise TorchFileError("it is a folder, not a file")
    if not path.stat().st_size:
        raise TorchFileError("it is empty")
    if path.suffix == ".json":
        return _load_index(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    with open(path, "rb") as file:
        start = file.read(512)
    if start.startswith(b"PK"):
        return read_zip(path)
    if start.startswith(START):
        return read_legacy(path)
    raise TorchFileError(_what_else(start))


def _what_else(start: bytes) -> str:
    if start[257:262] == b"ustar":
        return f"it has the tar format of torch < 0.4, which is not read: {SAVE_AGAIN}"
    for magic, what in OTHERS.items():
        if start.startswith(magic):
            return f"it is no torch file but {what}"
    if start[:1] == b"\x80":
        return f"it is a bare pickle, not a torch zip file: {SAVE_AGAIN}"
    return "it is no torch zip file, nor any other kind known here (broken or not a checkpoint)"


def _load_index(path: Path) -> dict:
    """All tensors of a sharded checkpoint, in the order of the index."""
    weight_map = read_json(path.read_bytes()).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise TorchFileError("it has no weight_map, so it is not the index of a checkpoint")
    for shard in weight_map.values():
        if (
            not isinstance(shard, str)
            or shard != os.path.basename(shard)
            or shard in ("", ".", "..")
        ):
            raise TorchFileError(f"it names {str(shard)[:100]!r}, which is no file beside it")
        if not shard.endswith((".safetensors", ".bin", ".pt", ".pth")):
            raise TorchFileError(f"it names {shard[:100]!r}, which is no kind of shard")
    shards = {shard: _load_shard(path.parent / shard) for shard in sorted(set(weight_map.values()))}
    missing = [name for name, shard in weight_map.items() if name not in shards[shard]]
    if missing:
        raise TorchFileError(
            f"{len(missing)} tensors are not in the files it names, e.g. {missing[0][:100]!r}"
        )
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def _load_shard(path: Path) -> dict:
    try:
        shard = _load(path)
    except TorchFileError as error:
        raise TorchFileError(f"its shard {path.name}: {error}") from error
    if not isinstance(shard, dict):
        raise TorchFileError(f"its shard {path.name} is not a dict of tensors")
    return shard
