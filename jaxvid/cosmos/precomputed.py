"""Embeddings that were made elsewhere: `.npz`, `.safetensors` or `.pt` files, named by prompts."""

import contextlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxvid.core import torch_file
from jaxvid.core.array_cache import as_numbers
from jaxvid.cosmos.text import TOKENS

SHOWN = 60  # characters of a prompt in a message


def find(files: Sequence[str], texts: Sequence[str]) -> dict[str, Path]:
    """Which of the texts the files have, and where; of two files the later one counts.

    Raises:
      ValueError: a file of something else.
    """
    found = {}
    for path in map(Path, files):
        with _opened(path) as arrays:
            names = set(arrays) & set(texts)
        found |= {text: path for text in texts if text in names}
    return found


def read(path: Path, prompt: str, width: int | None) -> np.ndarray:
    """The (512, c) array of a prompt; ValueError unless the file has it, or (1, 512, c).

    width: the c that it has to have; None for any.
    """
    with _opened(path) as arrays:
        array = as_numbers(np.asarray(arrays[prompt]))
    array = array[0] if array.ndim == 3 and len(array) == 1 else array
    wanted = (TOKENS, width or array.shape[-1])
    if array.shape != wanted:
        raise ValueError(
            f"text.precomputed={path}: {short(prompt)} has shape {array.shape}, not {wanted}"
        )
    return array


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Mapping]:
    """The arrays of a file by name, read when they are asked for."""
    path = path.expanduser()
    if path.suffix != ".npz":
        content = torch_file.load(path)
        if not isinstance(content, Mapping):
            raise ValueError(f"{path} holds {type(content).__name__}, not prompts with arrays")
        yield content
        return
    try:
        with np.load(path, allow_pickle=False) as file:
            yield file
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz file of arrays: {error}") from error


def short(prompt: str) -> str:
    """A prompt as messages show it."""
    return repr(prompt if len(prompt) <= SHOWN else f"{prompt[: SHOWN - 3]}...")
