"""Random numbers that belong to a request: the same on any devices, alone or in a batch."""

import hashlib
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def request_key(seed: int, request_id: str) -> jax.Array:
    """PRNG key of one request; every draw of it is derived by `jax.random.fold_in`."""
    digest = hashlib.sha256(f"{seed}/{request_id}".encode()).digest()
    return jax.random.key(int.from_bytes(digest[:8], "little", signed=True))


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
