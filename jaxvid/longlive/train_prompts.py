"""Prompts and captions of a training run: what is listed, in which order, and as embeddings."""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxvid.longlive.sources import read_lines
from jaxvid.longlive.train_config import DataConfig
from jaxvid.wan.umt5 import pad_rows

Prompts = tuple[str, ...]  # of one video, in the order in which they take over


def read_prompts(data: DataConfig, pairs: bool) -> list[Prompts]:
    """The prompts of a list, one tuple per video, which may hold more than training takes.

    Args:
      pairs: each video needs two prompts.
    Raises:
      ValueError: no list or an empty one, an empty prompt, or not two where two are needed.
    """
    if not data.prompts:
        raise ValueError("data.prompts is empty: give a .txt or .jsonl file of prompts")
    path = Path(data.prompts).expanduser()
    rows = _rows(path, "data.prompts")
    if data.switch_prompts:
        second = _rows(Path(data.switch_prompts).expanduser(), "data.switch_prompts")
        if len(second) != len(rows):
            raise ValueError(
                f"data.switch_prompts has {len(second)} lines, data.prompts {len(rows)}: "
                "they belong together line by line"
            )
        rows = [(a[0], b[0]) for a, b in zip(rows, second, strict=True)]
    count = 2 if pairs else 1
    if short := [i for i, row in enumerate(rows, 1) if len(row) < count]:
        raise ValueError(
            f"data.prompts={path}: row {short[0]} has one prompt, streaming needs two: give "
            'data.switch_prompts, or a .jsonl of {"prompts": [first, second]}'
        )
    return rows


def _rows(path: Path, field: str) -> list[Prompts]:
    lines = read_lines(path, field)
    return [_row(path, number, line) for number, line in lines]


def _row(path: Path, number: int, line: str) -> Prompts:
    prompts = [line.rstrip()]
    if path.suffix == ".jsonl":
        prompts = read_row(path, number, line).get("prompts")
    if not isinstance(prompts, list) or not prompts or not all(
        isinstance(text, str) and text.strip() for text in prompts
    ):  # fmt: skip
        raise ValueError(f"{path} line {number}: the prompt is empty: say what is to be seen")
    return tuple(prompts)


def read_row(path: Path, number: int, line: str) -> dict:
    """A row of a JSONL file; ValueError if it is no object."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} line {number}: no JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path} line {number} is no JSON object such as {{...}}")
    return row


class Order:
    """Which item a batch's row is about: epoch after epoch, each in an order of its own.

    A batch may end one epoch and begin the next; with fewer items than rows, some come twice.
    """

    def __init__(self, items: int, batch_size: int, seed: int):
        self.items, self.batch_size, self.seed = items, batch_size, seed
        self._of_epoch = functools.lru_cache(maxsize=4)(self._shuffled)

    def __call__(self, batch: int, row: int) -> int:
        epoch, place = divmod(batch * self.batch_size + row, self.items)
        return int(self._of_epoch(epoch)[place])

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.items)


class Texts:
    """Embeddings of prompts, made for many batches at a time and dropped when they are past."""

    def __init__(self, embed: Callable[[list[str]], dict], length: int, ahead: int):
        """embed: see `models.embed`; length: tokens; ahead: prompts to embed at a time."""
        self.embed, self.length, self.ahead = embed, length, ahead
        self.known: dict[str, np.ndarray] = {}
        self.kept: list[str] = []  # for good

    def keep(self, prompts: Sequence[str]) -> None:
        """Prompts that are never dropped."""
        self.kept = list(prompts)

    def __call__(self, rows: Sequence[str], upcoming: Callable[[int], Sequence[str]]) -> np.ndarray:
        """(b, length, c) of one prompt per row.

        upcoming: the prompts of the n-th batch from this one on, to be embedded with it.
        """
        if any(prompt not in self.known for prompt in rows):
            wanted = dict.fromkeys([*self.kept, *rows])
            for n in range(max(self.ahead // max(len(rows), 1), 1)):
                wanted |= dict.fromkeys(upcoming(n))
            missing = [prompt for prompt in wanted if prompt not in self.known]
            found = self.embed(missing)
            self.known = {prompt: found.get(prompt, self.known.get(prompt)) for prompt in wanted}
        return pad_rows([self.known[prompt] for prompt in rows], self.length)
