"""What each update of a LongLive training run sees, a function of (seed, step, position)."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from jaxvid.core.distributed import own_rows
from jaxvid.core.mesh import over_data
from jaxvid.longlive import models, stream
from jaxvid.longlive.ode_pairs import Pairs
from jaxvid.longlive.stream import Chunk
from jaxvid.longlive.train_prompts import Order, Prompts, Texts, read_prompts
from jaxvid.longlive.train_setup import Setup
from jaxvid.longlive.train_steps import Batch
from jaxvid.longlive.train_videos import Videos


class Turn(NamedTuple):
    """One rollout of an update and what it is for."""

    who: str  # generator, critic, or nobody
    chunk: Chunk
    batch: Batch


class PromptList:
    """The data set of the distillations: nothing but prompts."""

    def __init__(self, rows: list[Prompts], where: str, count: int = 1):
        """count: prompts that are taken of each row, the first ones."""
        self.rows, self.where, self.count = [row[:count] for row in rows], where, count
        self.longer = sum(len(row) > count for row in rows)

    def __len__(self) -> int:
        return len(self.rows)

    def describe(self) -> str:
        pairs = " pairs of" if self.count > 1 else ""
        text = f"{len(self)}{pairs} prompts from {self.where}"
        if self.longer:
            text += f"; {self.longer} rows have more prompts, of which the first {self.count} count"
        return text

    def listing(self) -> list:
        return self.rows

    def prompts(self, index: int) -> Prompts:
        return self.rows[index]


def open_data(setup: Setup) -> PromptList | Videos | Pairs:
    """The data set of the stage; ValueError, in one line, if it does not fit.

    It has a length, `prompts(index)`, a `listing()` that tells it from others of its kind and, but
    for prompts alone, arrays by index.
    """
    train = setup.train
    if train.stage == "flow_matching":
        return Videos(setup)
    if train.stage == "ode":
        shape = (train.frames, *setup.latent_shape)
        return Pairs(setup.data.pairs, setup.rollout.steps, train.ode_shift, shape)
    pairs = train.stage == "streaming"
    return PromptList(read_prompts(setup.data, pairs), setup.data.prompts, 2 if pairs else 1)


class Feed:
    """Batches on the devices; each process reads and embeds its own rows."""

    def __init__(self, setup: Setup, source, mesh):
        self.setup, self.source = setup, source
        self.place = over_data(mesh)
        train = setup.train
        self.rows = own_rows(train.batch_size)
        self.order = Order(len(source), train.batch_size, train.seed)
        self.texts = Texts(
            functools.partial(embed, setup),
            setup.network.text_length,
            setup.data.prompts_ahead,
        )
        self.shown = [source.prompts(row % len(source))[0] for row in own_rows(mesh.shape["data"])]
        kept = [setup.data.negative_prompt] if train.distils else []
        self.texts.keep([*kept, *self.shown] if train.sample_every else kept)

    def __call__(self, step: int, position: stream.Position) -> Batch | list[Turn]:
        """What an update is about; for the distillations one turn after the other."""
        train = self.setup.train
        if not train.distils:
            return self._regression(step)
        turns = stream.plan(train, self.setup.rollout.block, step, position)
        of_video = {chunk.video: self._of_video(chunk.video) for _, chunk in turns}
        return [Turn(who, chunk, of_video[chunk.video]) for who, chunk in turns]

    def shown_texts(self) -> jax.Array:
        """(b, m, c) of the sample videos, the first of the list, one per device of `data`."""
        return self._put(self.texts(self.shown, lambda n: ()))

    def _of_video(self, video: int) -> Batch:
        count = 2 if self.setup.train.stage == "streaming" else 1
        text = tuple(self._text(video, which) for which in range(count))
        negative = self.texts([self.setup.data.negative_prompt] * len(self.rows), lambda n: ())
        return Batch(text, self._put(negative))

    def _regression(self, step: int) -> Batch:
        arrays = np.stack([self.source[self.order(step, row)] for row in self.rows])
        name = "path" if self.setup.train.stage == "ode" else "clean"
        return Batch((self._text(step, 0),), **{name: self._put(arrays)})

    def _text(self, video: int, which: int) -> jax.Array:
        def prompts(batch: int, which: int) -> list[str]:
            return [self.source.prompts(self.order(batch, row))[which] for row in self.rows]

        def upcoming(n: int) -> list[str]:
            found = self.source.prompts(0)
            return [text for w in range(len(found)) for text in prompts(video + n, w)]

        return self._put(self.texts(prompts(video, which), upcoming))

    def _put(self, array: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(self.place, array)


def embed(setup: Setup, prompts: list[str]) -> dict[str, np.ndarray]:
    """Embeddings of prompts; says how many of them are cut."""
    tokens = models.tokenizer(setup)
    if long := [prompt for prompt in prompts if tokens.cut(prompt)]:
        print(
            f"{len(long)} of {len(prompts)} prompts are longer than {tokens.length} tokens and "
            f"are cut, such as {long[0][:60]!r}",
            flush=True,
        )
    return models.embed(setup, prompts)
