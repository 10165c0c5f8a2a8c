"""Prompts to tokens as Cosmos-Reason1 was given them: a short chat, padded to 512 tokens."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from jaxvid.cosmos.text import TOKENS
from jaxvid.wan.tokenizer import read_tokenizer

SYSTEM = "You are a helpful assistant who will provide prompts to an image generator."
BEFORE = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
AFTER = "<|im_end|>\n"
PADDING = "<|endoftext|>"
SPECIAL = (PADDING, "<|im_start|>", "<|im_end|>")  # numbered in this order after the vocabulary
WORDS = (  # pieces of text that no token crosses, in Qwen2's `tokenizer.json`
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def rendered(prompt: str) -> str:
    """The chat that stands for a prompt, without the beginning of an answer."""
    return BEFORE + prompt + AFTER


class Tokenizer:
    """Qwen2.5's tokens of a prompt; what is past 512 is cut, the end of the chat with it."""

    def __init__(self, path):
        """path: a `tokenizer.json`, or a folder with it or with `vocab.json` and `merges.txt`.

        Raises:
          ValueError: no tokenizer there, or not one of Qwen2.
        """
        path = Path(path).expanduser()
        self.path = path / "tokenizer.json" if path.is_dir() else path
        if self.path.is_file():
            self._tokenizer = read_tokenizer(self.path)
        elif (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
            self.path = path / "vocab.json"
            self._tokenizer = _assembled(path)
        else:
            raise ValueError(
                f"there is no tokenizer {self.path}: give the folder of Cosmos-Reason1-7B, which "
                "has tokenizer.json, or vocab.json and merges.txt"
            )
        missing = [name for name in SPECIAL if self._tokenizer.token_to_id(name) is None]
        if missing:
            raise ValueError(f"{self.path} is no tokenizer of Qwen2: it has no {missing[0]}")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def padding_id(self) -> int:
        return self._tokenizer.token_to_id(PADDING)

    @property
    def size(self) -> int:
        """Numbers that tokens can have."""
        return self._tokenizer.get_vocab_size()

    def __call__(self, prompts: Sequence[str]) -> np.ndarray:
        """(b, 512) int32; padding is on the right, and nothing tells it from the prompt."""
        found = np.full((len(prompts), TOKENS), self.padding_id, np.int32)
        for row, prompt in zip(found, prompts, strict=True):
            ids = self._encode(prompt).ids[:TOKENS]
            row[: len(ids)] = ids
        return found

    def cut(self, prompt: str) -> str:
        """The end of a prompt that is past 512 tokens, "" if all of it fits."""
        offsets = self._encode(prompt).offsets
        if len(offsets) <= TOKENS:
            return ""
        kept = max(end for _, end in offsets[:TOKENS])
        return (BEFORE + prompt)[max(kept, len(BEFORE)) :]

    def _encode(self, prompt: str):
        return self._tokenizer.encode(rendered(prompt), add_special_tokens=False)


def _assembled(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a folder that has its vocabulary and merges, but no `tokenizer.json`."""
    try:
        files = (str(folder / "vocab.json"), str(folder / "merges.txt"))
        tokenizer = tokenizers.Tokenizer(models.BPE.from_file(*files))
    except Exception as error:  # the package raises nothing narrower
        line = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder} has no sound vocab.json and merges.txt: {line}") from error
    words = pre_tokenizers.Split(tokenizers.Regex(WORDS), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, letters])
    tokenizer.decoder = decoders.ByteLevel()
    for number, name in _added(folder, tokenizer.get_vocab_size()):
        tokenizer.add_special_tokens([tokenizers.AddedToken(name, normalized=False)])
        if tokenizer.token_to_id(name) != number:
            raise ValueError(
                f"{folder / 'tokenizer_config.json'} gives {name} the number {number}, "
                f"its vocabulary {tokenizer.token_to_id(name)}: use the tokenizer.json"
            )
    return tokenizer


def _added(folder: Path, size: int) -> list[tuple[int, str]]:
    """Numbers and names of the tokens that are not in the vocabulary."""
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return list(enumerate(SPECIAL, start=size))
    try:
        added = json.loads(config.read_text(encoding="utf-8")).get("added_tokens_decoder", {})
        found = sorted((int(number), token["content"]) for number, token in added.items())
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{config} is not the settings of a tokenizer: {error}") from error
    return found or list(enumerate(SPECIAL, start=size))
