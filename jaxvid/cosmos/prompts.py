"""Embeddings of Cosmos' prompts: given in files, or made by the text encoder.

The encoder is read layer by layer and stays only while it works: with 7 billion parameters in
bfloat16, that is 1 GB on a device and on the host instead of 15.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np

from jaxvid.core import block_stream, checkpoint, torch_file
from jaxvid.core.block_stream import Part
from jaxvid.core.config import build
from jaxvid.core.mesh import MeshConfig, make_mesh
from jaxvid.core.noise import check_seed
from jaxvid.cosmos import precomputed, text, text_keys
from jaxvid.cosmos.precomputed import short
from jaxvid.cosmos.text import TOKENS, TextConfig
from jaxvid.cosmos.tokens import Tokenizer

PASS = 16  # prompts for which the layers are read once; 1.6 GB of embeddings at full size


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """Where the embeddings of prompts come from, and where the words made of them are kept."""

    precomputed: tuple[str, ...] = ()  # .npz, .safetensors or .pt files of prompt: (512, c)
    embeddings: str = "~/.cache/jaxvid/cosmos"  # folder that keeps words, see words.py; "": memory
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
        f"prompt {short(prompt)} is longer than {TOKENS} tokens; cut: {end!r}"
        for prompt, end in ends.items()
        if end
    ]


def sources(settings: PromptSettings, texts: Sequence[str]) -> dict[str, list]:
    """What the embedding of each text depends on, as JSON values; no numbers are read.

    Raises:
      ValueError: an empty text, or one that is not in `precomputed` where there is no encoder.
    """
    if "" in texts:
        raise ValueError("a prompt is empty: say what the video shows")
    given, rest = _given_or_not(settings, texts)
    names = {path: checkpoint.identity(path) for path in set(given.values())}
    found = {t: [names[path], settings.config.dtype, t] for t, path in given.items()}
    if rest:
        identity = settings.identity()
        ids = _tokenizer(settings.config.tokenizer_path)(rest).tolist()
        found |= {t: [identity, row] for t, row in zip(rest, ids, strict=True)}
    return found


def embeddings(settings: PromptSettings, texts: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Each text and its (512, c) embedding in `config.dtype`, in some order, PASS at a time.

    The encoder is read only for texts that `precomputed` lacks, and is gone when the last one is
    there.

    Raises:
      ValueError: see sources; a precomputed array of another shape.
    """
    given, rest = _given_or_not(settings, texts)
    for prompt, path in given.items():
        yield prompt, read_given(settings, path, prompt)
    for start in range(0, len(rest), PASS):
        part = rest[start : start + PASS]
        ids = _tokenizer(settings.config.tokenizer_path)(part)
        yield from zip(part, encode(settings, ids), strict=True)


def encode(settings: PromptSettings, ids: np.ndarray) -> np.ndarray:
    """(b, 512, c) embeddings of tokens (b, 512), by one reading of the encoder's layers.

    Runs on one device, whatever the mesh: the work is small, the layers come from the disk.
    """
    network = settings.network
    encoder = block_stream.stream(settings.part(), network.layers, network.dtype)
    table, blocks, norm = encoder
    with jax.set_mesh(make_mesh(MeshConfig(), jax.local_devices()[:1])):
        return text.embeddings(network, table, blocks(), norm, ids)


def read_given(settings: PromptSettings, path: Path, prompt: str) -> np.ndarray:
    """An array of `precomputed`, (512, c) in `config.dtype`; see precomputed.read."""
    return precomputed.read(path, prompt, settings.embedding_width).astype(settings.config.dtype)


def _given_or_not(
    settings: PromptSettings, texts: Sequence[str]
) -> tuple[dict[str, Path], list[str]]:
    """Where embeddings of texts are given, and the texts that the encoder has to read."""
    found = precomputed.find(settings.config.precomputed, texts)
    rest = [t for t in dict.fromkeys(texts) if t not in found]
    if rest and settings.network is None:
        raise ValueError(
            f"text.precomputed has no embedding of {short(rest[0])} ({len(rest)} prompts in all): "
            "add it, or name text.encoder"
        )
    return found, rest
