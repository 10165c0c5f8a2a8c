"""Embeddings of prompts: kept on disk, and made by a text encoder that stays only while it works.

The encoder is read block by block, so that neither host nor device ever holds all of its 11 GB.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxvid.core import block_stream, checkpoint
from jaxvid.core.array_cache import ArrayCache
from jaxvid.core.block_stream import Part, Stream
from jaxvid.core.config import build
from jaxvid.core.torch_file import load_all
from jaxvid.wan import umt5
from jaxvid.wan.tokenizer import Tokenizer, Tokens
from jaxvid.wan.umt5 import Umt5Config
from jaxvid.wan.umt5_keys import parameters

BATCH = 8  # prompts that one call of a block takes
PASS = 128  # prompts for which the blocks are read once; 1 GB of states at full size
LENGTHS = (64, 128, 256)  # tokens that prompts are cut to where all of a batch are shorter


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """Where the parameters are; nothing is kept of them."""

    path: Path
    config: Umt5Config

    @property
    def from_file(self) -> bool:
        """Whether the parameters are in a file of another project, not in a checkpoint of ours."""
        return self.path.is_file()

    def identity(self) -> str:
        """Tells encoders apart, without reading them."""
        return checkpoint.identity(self.path)

    def encode(self, tokens: Tokens) -> Iterator[np.ndarray]:
        """The (length, c) embeddings of each prompt, in order; of the encoder's type.

        They come a pass at a time, so that they can be kept before the next one begins.
        """
        encoder = block_stream.stream(self.part(), self.config.layers, self.config.dtype)
        for start in range(0, len(tokens.ids), PASS):
            part = Tokens(*(a[start : start + PASS] for a in tokens))
            for rows in self._encode_pass(part, encoder):
                yield rows.astype(jnp.dtype(self.config.dtype))

    def _encode_pass(self, tokens: Tokens, encoder: Stream) -> list[np.ndarray]:
        order, batches = in_batches(tokens)
        table, blocks, norm = encoder
        states = umt5.encode(self.config, table, blocks(), norm, batches)
        rows = [r for x, (_, mask) in zip(states, batches, strict=True)
                for r in umt5.prompt_rows(x, mask)]  # fmt: skip
        found = {int(prompt): row for prompt, row in zip(order, rows, strict=True)}
        return [found[i] for i in range(len(tokens.ids))]

    def part(self) -> Part:
        """Reads the parameters of one part."""
        if self.from_file:
            return parameters(load_all([self.path]))[1].__getitem__
        return block_stream.stored(self.path)


def load_encoder(path, dtype: str = "bfloat16") -> TextEncoder:
    """The encoder of a checkpoint folder of ours, or of a file or `.index.json` (see umt5_keys).

    dtype: of parameters and products.
    Raises:
      ValueError: nothing there, or another model.
    """
    path = Path(path).expanduser()
    if path.is_file():
        config, _ = parameters(load_all([path]))
        return TextEncoder(path, dataclasses.replace(config, dtype=dtype))
    info = checkpoint.read_info(path)
    if info.get("model") != "umt5":
        raise ValueError(f"{path} is a checkpoint of {info.get('model')!r}, not of 'umt5'")
    config = build(Umt5Config, {**info["config"], "dtype": dtype}, f"{path}: config")
    return TextEncoder(path, config)


def in_batches(tokens: Tokens) -> tuple[np.ndarray, list[Tokens]]:
    """Prompts of similar length together, cut to a common one; and their numbers in that order.

    Positions past the end of a prompt have no weight, so leaving them out changes nothing.
    """
    lengths = tokens.mask.sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    batches = []
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        longest = lengths[chosen].max()
        size = next((n for n in LENGTHS if longest <= n), tokens.ids.shape[1])
        batches.append(Tokens(*(a[chosen, :size] for a in tokens)))
    return order, batches


class PromptCache:
    """Embeddings kept in a folder, by prompt and encoder."""

    def __init__(self, folder, identity: str):
        """identity: of the encoder, see `TextEncoder.identity`."""
        self.files = ArrayCache(folder)
        self.identity = identity

    def _key(self, ids: np.ndarray, mask: np.ndarray) -> str:
        return json.dumps([self.identity, ids[: mask.sum()].tolist()])

    def read(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
        """What was written for this prompt; None if there is nothing, or it is damaged."""
        rows = self.files.read(self._key(ids, mask))
        return rows if rows is not None and rows.ndim == 2 and len(rows) == mask.sum() else None

    def write(self, ids: np.ndarray, mask: np.ndarray, rows: np.ndarray) -> None:
        self.files.write(self._key(ids, mask), rows)


def embed_prompts(
    prompts: Sequence[str], tokenizer: Tokenizer, encoder: TextEncoder, folder=None
) -> dict[str, np.ndarray]:
    """The (length, c) embeddings of each prompt; `umt5.pad_rows` makes batches of them.

    folder: of the cache, which each pass of the encoder adds to; the encoder is read only if some
      prompt is not in it. None keeps nothing.
    """
    prompts = list(dict.fromkeys(prompts))
    tokens = tokenizer(prompts)
    cache = folder and PromptCache(folder, f"{encoder.identity()} {encoder.config.dtype}")
    found = {}
    if cache:
        read = {p: cache.read(*pair) for p, *pair in zip(prompts, *tokens, strict=True)}
        found = {prompt: rows for prompt, rows in read.items() if rows is not None}
    missing = [i for i, prompt in enumerate(prompts) if prompt not in found]
    if missing:
        part = Tokens(*(a[missing] for a in tokens))
        for i, rows in zip(missing, encoder.encode(part), strict=True):
            found[prompts[i]] = rows
            if cache:
                cache.write(tokens.ids[i], tokens.mask[i], rows)
    return found
