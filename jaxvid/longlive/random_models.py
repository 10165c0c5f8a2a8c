"""The text encoder drawn from a seed, for tests and for measuring speed: `models.random=True`."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from jaxvid.core.random_tree import draw
from jaxvid.wan import umt5
from jaxvid.wan.prompts import TextEncoder


@dataclasses.dataclass(frozen=True)
class RandomEncoder(TextEncoder):
    """A text encoder without a file; its blocks are drawn one by one."""

    seed: int = 0

    def identity(self) -> str:
        return f"random {self.seed} {dataclasses.asdict(self.config)}"

    def _open(self):
        abstract = umt5.abstract_parameters(self.config)
        part = functools.partial(draw, seed=self.seed, dtype=self.config.dtype)

        def blocks() -> Iterator[dict]:
            for i in range(self.config.layers):
                drawn = part(abstract[f"block_{i}"], name=f"block_{i}")
                yield jax.tree.map(jnp.asarray, drawn)

        norm = jax.tree.map(jnp.asarray, part(abstract["norm"], name="norm"))
        table = part({"embedding": abstract["embedding"]}, name="table")["embedding"]
        return table, blocks, norm
