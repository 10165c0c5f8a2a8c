"""Prompts to tokens as Wan2.1 does it (LongLive v1.0, `wan/modules/tokenizers.py`).

Reads the `tokenizer.json` that comes with the release (`google/umt5-xxl/`).
"""

import html
import json
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import ftfy
import numpy as np
import tokenizers

LENGTH = 512  # tokens that Wan's transformer is conditioned on
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Tokens(NamedTuple):
    ids: np.ndarray  # (b, n) int32
    mask: np.ndarray  # (b, n) int32, 1 for tokens of the prompt, the end token included


def repair(text: str) -> str:
    """Mends broken encodings and HTML entities (even doubly escaped ones)."""
    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def single_spaces(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def clean_whitespace(text: str) -> str:
    """The cleaning that Wan's models are trained with."""
    return single_spaces(repair(text))


def clean_lower(text: str) -> str:
    return clean_whitespace(text).lower()


def clean_canonical(text: str) -> str:
    """Lower case without punctuation."""
    return single_spaces(repair(text).replace("_", " ").translate(NO_PUNCTUATION).lower())


CLEANING = {
    "whitespace": clean_whitespace,
    "lower": clean_lower,
    "canonicalize": clean_canonical,
    "none": str,
}


class Tokenizer:
    """Pads every prompt to `length` tokens; a longer one is cut, and its end token stays last."""

    def __init__(self, path, length: int = LENGTH, cleaning: str = "whitespace"):
        """path: `tokenizer.json` or its folder; cleaning: a name in CLEANING.

        Raises:
          ValueError: no tokenizer there, one without a padding token, or an unknown cleaning.
        """
        if cleaning not in CLEANING:
            raise ValueError(f"cleaning={cleaning!r} is not one of {', '.join(CLEANING)}")
        if length < 2:
            raise ValueError(
                f"length={length} leaves no room for a token and the end: use {LENGTH}"
            )
        path = Path(path).expanduser()
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"there is no tokenizer {path}: give google/umt5-xxl of the release")
        self.clean: Callable[[str], str] = CLEANING[cleaning]
        self.length = length
        self.path = path
        self._tokenizer = read_tokenizer(path)
        self._tokenizer.enable_truncation(length)
        self.padding_id = _padding_id(self._tokenizer, path)
        self._tokenizer.enable_padding(length=length, pad_id=self.padding_id)

    def __call__(self, prompts: Sequence[str]) -> Tokens:
        """Tokens of the cleaned prompts; the empty prompt is one end token."""
        found = self._tokenizer.encode_batch([self.clean(prompt) for prompt in prompts])
        ids = np.array([encoding.ids for encoding in found], np.int32)
        mask = np.array([encoding.attention_mask for encoding in found], np.int32)
        return Tokens(ids.reshape(-1, self.length), mask.reshape(-1, self.length))

    def cut(self, prompt: str) -> str:
        """The end of a cleaned prompt that is past `length` tokens, "" if all of it fits."""
        text = self.clean(prompt)
        encoding = self._tokenizer.encode(text)
        if not encoding.overflowing:
            return ""
        return text[max(end for _, end in encoding.offsets) :].strip()


def read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """The contents of a `tokenizer.json`; raises ValueError, in one line, if it is none."""
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing narrower
        line = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is not a tokenizer.json: {line}") from error


def _padding_id(tokenizer: tokenizers.Tokenizer, path: Path) -> int:
    """Of the token that `tokenizer_config.json` names, or `<pad>`."""
    config, token = path.with_name("tokenizer_config.json"), "<pad>"
    if config.is_file():
        try:
            token = json.loads(config.read_text(encoding="utf-8")).get("pad_token") or token
        except ValueError as error:
            raise ValueError(f"{config} is not valid JSON: {error}") from error
    token = token["content"] if isinstance(token, dict) else token
    number = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"{path} has no padding token {token!r}")
    return number
