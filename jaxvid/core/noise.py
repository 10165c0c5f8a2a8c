"""Random numbers that belong to a request: the same on any devices, alone or in a batch."""

import hashlib
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

SEEDS = 2**32  # that `jax.random.key` tells apart


def check_seed(name: str, value: int) -> None:
    """Raises ValueError unless the setting `name` is a seed of generators, 0 to SEEDS - 1.

    Seeds of requests need no check: `request_key` takes any whole number.
    """
    if not 0 <= value < SEEDS:
        raise ValueError(f"{name}={value} is no seed: use a whole number from 0 to {SEEDS - 1}")


def request_key(seed: int, request_id: str) -> jax.Array:
    """PRNG key of one request; every draw of it is derived by `jax.random.fold_in`.

    All 64 bits of a key are used: `jax.random.key` would keep 32, of which requests by the hundred
    thousand share some. The generator is named, whatever JAX is told to take by default.
    """
    digest = hashlib.sha256(f"{seed}/{request_id}".encode()).digest()
    return jax.random.wrap_key_data(np.frombuffer(digest[:8], "<u4"), impl="threefry2x32")


def normal(key, shape: Sequence[int]) -> jax.Array:
    """The numbers of `jax.random.normal`, drawn as one axis.

    XLA on a CPU takes many times as long to compile the generator over five axes as over one.
    """
    return jax.random.normal(key, (math.prod(shape),)).reshape(shape)


def uniform(key, shape: Sequence[int], bound: float, dtype=jnp.float32) -> jax.Array:
    """The numbers of `jax.random.uniform` within +-bound, drawn as one axis like `normal`."""
    flat = jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound)
    return flat.reshape(shape)


def truncated_normal(key, shape: Sequence[int], std: float, dtype=jnp.float32) -> jax.Array:
    """Normal numbers of deviation `std` before they are cut at 3 * std; drawn as one axis."""
    flat = jax.random.truncated_normal(key, -3.0, 3.0, (math.prod(shape),), dtype)
    return std * flat.reshape(shape)
