"""Embeddings of Cosmos' prompts: given in files, kept on disk, or made by the text encoder.

The encoder is read layer by layer and stays only while it works: with 7 billion parameters in
bfloat16, that is 1 GB on a device and on the host instead of 15.
"""

import contextlib
import dataclasses
import functools
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from jaxvid.core import block_stream, checkpoint, torch_file
from jaxvid.core.array_cache import ArrayCache, as_numbers
from jaxvid.core.block_stream import Part
from jaxvid.core.config import build
from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.core.noise import check_seed
from jaxvid.cosmos import text, text_keys
from jaxvid.cosmos.text import TOKENS, TextConfig
from jaxvid.cosmos.tokens import Tokenizer

PASS = 16  # prompts for which the layers are read once; 1.6 GB of embeddings at full size
SHOWN = 60  # characters of a prompt in a message


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """Where the embeddings of prompts come from; the first source that has one serves."""

    precomputed: tuple[str, ...] = ()  # .npz, .safetensors or .pt files of prompt: (512, c)
    embeddings: str = "~/.cache/jaxvid/cosmos"  # folder that keeps those once made; "": memory
    encoder: str = "checkpoints/Cosmos-Reason1-7B"  # the release's folder, or converted; "": none
    tokenizer: str = ""  # tokenizer.json or its folder; "": beside the encoder
    dtype: Literal["float32", "bfloat16"] = "bfloat16"  # of the encoder and the embeddings
    random: bool = False  # no encoder file: one drawn from a seed, for tests and speed
    random_seed: int = 0

    def __post_init__(self):
        if self.random and not self.tokenizer:
            raise ValueError("text.random=True needs text.tokenizer, e.g. data/tokenizer_qwen")
        check_seed("text.random_seed", self.random_seed)

    @property
    def tokenizer_path(self) -> str:
        """ "" if there is neither an encoder nor a tokenizer."""
        return self.tokenizer or self.encoder


@dataclasses.dataclass(frozen=True)
class PromptSettings:
    """Checked sources; `network` is the encoder's shape, None if there is none."""

    config: PromptConfig
    network: TextConfig | None

    @property
    def embedding_width(self) -> int | None:
        """Channels of an embedding; None if only the files that hold them can tell."""
        return self.network.embedding_width if self.network else None

    def identity(self) -> str:
        """Tells encoders apart, without reading them."""
        config = self.config
        if config.random:
            return f"random {config.random_seed} {dataclasses.asdict(self.network)}"
        return f"{checkpoint.identity(config.encoder)} {config.dtype}"

    def part(self) -> Part:
        """Reads the parameters of one part of the encoder."""
        config = self.config
        path = Path(config.encoder).expanduser()
        if config.random:
            abstract = text.abstract_parameters(self.network)
            return block_stream.drawn(abstract, config.random_seed, config.dtype)
        if _is_ours(path):
            return block_stream.stored(path)
        return _read(path)[1].__getitem__


def _is_ours(path: Path) -> bool:
    """Whether it is a checkpoint of ours, not safetensors of the release."""
    return path.is_dir() and not any(path.glob("*.safetensors*"))


def _read(path: Path) -> tuple[TextConfig, dict]:
    files, settings = text_keys.locate(path)
    return text_keys.parameters(torch_file.load_all(files), **settings)


def prompt_settings(config: PromptConfig, random: TextConfig | None = None) -> PromptSettings:
    """Checks that the sources are there and tells the encoder's shape, without reading numbers.

    random: the shape with `config.random`.
    Raises:
      ValueError: no file there, or of another model.
    """
    for path in config.precomputed:
        if not Path(path).expanduser().is_file():
            raise ValueError(f"text.precomputed={path}: there is no such file")
    if config.random:
        return _with_tokenizer(PromptSettings(config, _typed(random, config)))
    if not config.encoder:
        if not config.precomputed:
            raise ValueError("text.encoder and text.precomputed are empty: give one of them")
        return PromptSettings(config, None)
    path = Path(config.encoder).expanduser()
    if not path.exists():
        raise ValueError(
            f"text.encoder={path}: there is no such folder; see README, Cosmos multiview, for the "
            "downloads, or set text.encoder='' and give text.precomputed"
        )
    try:
        network = _describe(path)
    except ValueError as error:
        raise ValueError(f"text.encoder={path}: {error}") from error
    return _with_tokenizer(PromptSettings(config, _typed(network, config)))


def _typed(network: TextConfig, config: PromptConfig) -> TextConfig:
    return dataclasses.replace(network, dtype=config.dtype)


def _describe(path: Path) -> TextConfig:
    if not _is_ours(path):
        return _read(path)[0]
    info = checkpoint.read_info(path)
    if info.get("model") != "cosmos_text":
        raise ValueError(f"is a checkpoint of {info.get('model')!r}, not of 'cosmos_text'")
    return build(TextConfig, info["config"], f"{path}: config")


_tokenizer = functools.cache(Tokenizer)  # its file is large, and each sample's prompt is checked


def _with_tokenizer(settings: PromptSettings) -> PromptSettings:
    size = _tokenizer(settings.config.tokenizer_path).size
    if size > settings.network.vocabulary:
        raise ValueError(
            f"text.tokenizer={settings.config.tokenizer_path} has {size} tokens, the encoder knows "
            f"{settings.network.vocabulary}: give files of one release"
        )
    return settings


def cut_notes(settings: PromptSettings, texts: Sequence[str]) -> list[str]:
    """A line for each prompt of which only 512 tokens are read, with what is left out."""
    if not settings.config.tokenizer_path:
        return []
    tokenizer = _tokenizer(settings.config.tokenizer_path)
    ends = {prompt: tokenizer.cut(prompt) for prompt in dict.fromkeys(texts)}
    return [
        f"prompt {_short(prompt)} is longer than {TOKENS} tokens; cut: {end!r}"
        for prompt, end in ends.items()
        if end
    ]


def check_texts(texts: Sequence[str]) -> None:
    """Raises ValueError for an empty prompt; a view without one has a single space."""
    if "" in texts:
        raise ValueError("a prompt is empty: say what the video shows")


class Embeddings(Mapping):
    """The (512, c) embedding of each text, in `config.dtype`, read when it is asked for.

    At full size one has 103 MB, so a run of many prompts cannot hold them.
    """

    def __init__(self, read: Mapping[str, Callable[[], np.ndarray]]):
        self._read = read

    def __getitem__(self, prompt: str) -> np.ndarray:
        return self._read[prompt]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


def text_embeddings(settings: PromptSettings, texts: Sequence[str]) -> Embeddings:
    """Embeddings of all the texts, which are made where there are none yet.

    The encoder is read only for texts that neither `precomputed` nor the kept ones have, and is
    gone when this returns. Without a folder that keeps them they stay in memory.

    Raises:
      ValueError: an empty text, or no encoder for a text; later, where one is read, a precomputed
        array of another shape.
    """
    check_texts(texts)
    texts = list(dict.fromkeys(texts))
    found = precomputed(settings, texts)
    rest = [prompt for prompt in texts if prompt not in found]
    if rest and settings.network is None:
        raise ValueError(
            f"text.precomputed has no embedding of {_short(rest[0])} ({len(rest)} prompts in all): "
            "add it, or name text.encoder"
        )
    if rest:
        found |= _kept_or_made(settings, rest)
    return Embeddings({prompt: found[prompt] for prompt in texts})


def _kept_or_made(
    settings: PromptSettings, texts: list[str]
) -> dict[str, Callable[[], np.ndarray]]:
    config, shape = settings.config, (TOKENS, settings.embedding_width)
    ids = _tokenizer(config.tokenizer_path)(texts)
    identity = settings.identity()
    keys = {t: json.dumps([identity, row.tolist()]) for t, row in zip(texts, ids, strict=True)}
    cache = ArrayCache(config.embeddings) if config.embeddings else None
    found = {}
    if cache:
        found = {t: functools.partial(_kept, cache, key) for t, key in keys.items()}
    missing = [i for i, t in enumerate(texts) if not (cache and _is_kept(cache, keys[t], shape))]
    for start in range(0, len(missing), PASS):
        chosen = missing[start : start + PASS]
        for i, array in zip(chosen, encode(settings, ids[chosen]), strict=True):
            if cache:
                cache.write(keys[texts[i]], array)
            else:
                found[texts[i]] = functools.partial(np.asarray, array)
    return found


def _is_kept(cache: ArrayCache, key: str, shape: tuple[int, int]) -> bool:
    array = cache.read(key, mapped=True)
    return array is not None and array.shape == shape


def _kept(cache: ArrayCache, key: str) -> np.ndarray:
    array = cache.read(key, mapped=True)
    if array is None:
        raise ValueError(
            f"the embedding of a prompt is no longer in text.embeddings={cache.folder}: the same "
            "command again makes it"
        )
    return array


def encode(settings: PromptSettings, ids: np.ndarray) -> np.ndarray:
    """(b, 512, c) embeddings of tokens (b, 512), by one reading of the encoder's layers.

    Runs on one device, whatever the mesh: the work is small, the layers come from the disk.
    """
    network = settings.network
    encoder = block_stream.stream(settings.part(), network.layers, network.dtype)
    table, blocks, norm = encoder
    with jax.set_mesh(make_mesh(MeshConfig(), jax.local_devices()[:1])):
        return text.embeddings(network, table, blocks(), norm, ids)


def precomputed(
    settings: PromptSettings, texts: Sequence[str]
) -> dict[str, Callable[[], np.ndarray]]:
    """What reads those of the texts that the given files have; a file maps prompts to arrays."""
    found = {}
    for path in map(Path, settings.config.precomputed):
        with _opened(path) as arrays:
            names = set(arrays) & set(texts)
        found |= {prompt: functools.partial(_given, settings, path, prompt) for prompt in names}
    return found


def _given(settings: PromptSettings, path: Path, prompt: str) -> np.ndarray:
    """An array of a file; ValueError unless it is (512, c) or (1, 512, c), c as the encoder's."""
    with _opened(path) as arrays:
        array = as_numbers(np.asarray(arrays[prompt]))
    array = array[0] if array.ndim == 3 and len(array) == 1 else array
    width = settings.embedding_width or array.shape[-1]
    if array.shape != (TOKENS, width):
        raise ValueError(
            f"text.precomputed={path}: {_short(prompt)} has shape {array.shape}, not "
            f"{(TOKENS, width)}"
        )
    return array.astype(settings.config.dtype)


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


def _short(prompt: str) -> str:
    return repr(prompt if len(prompt) <= SHOWN else f"{prompt[: SHOWN - 3]}...")
