"""Encoders of prompts read block by block: neither host nor device ever holds one whole.

Their parameters are {"embedding", "block_0", "block_1", ..., "norm"}.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core import checkpoint
from jaxvid.core.random_tree import draw

Part = Callable[[str], Mapping]  # the parameters under a name: on the disk, or made on demand


class Stream(NamedTuple):
    """An encoder of which nothing but the table of tokens and the last norm is read yet."""

    table: np.ndarray  # (vocabulary, c) on the host, or mapped from a file
    blocks: Callable[[], Iterator[dict]]  # each block in turn, on the device
    norm: dict


def stream(part: Part, layers: int, dtype: str) -> Stream:
    """Opens an encoder; `dtype` is that of the blocks on the device."""

    def blocks() -> Iterator[dict]:
        for i in range(layers):
            block = part(f"block_{i}")
            yield jax.tree.map(lambda a: jnp.asarray(np.asarray(a, jnp.dtype(dtype))), block)

    return Stream(part("embedding"), blocks, jax.tree.map(jnp.asarray, part("norm")))


def stored(path) -> Part:
    """Parts of a checkpoint folder of ours."""
    return lambda name: checkpoint.restore(path, part=name)


def drawn(abstract: Mapping, seed: int, dtype: str) -> Part:
    """Parts drawn at random when they are asked for."""
    return lambda name: draw({name: abstract[name]}, seed, dtype)[name]
