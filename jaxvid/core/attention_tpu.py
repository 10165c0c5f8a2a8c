"""Fused attention on TPUs: JAX's Pallas kernel for sequences of any length."""

import jax
import jax.numpy as jnp
from einops import rearrange

BLOCK = 1024  # queries and keys that a step of the kernel takes at most


@jax.jit
def tpu_attention(q, k, v):
    """Softmax attention that never holds all scores; differentiable.

    Args:
      q: (b, n, k, d) queries; scaled here by d ** -0.5.
      k, v: (b, m, k, d) keys and values.
    Returns:
      (b, n, k, d)
    """
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas  # only where it can run

    n, m = q.shape[1], k.shape[1]
    rows, columns = (min(BLOCK, -(-length // 128) * 128) for length in (n, m))
    q = _heads_first(q, rows)
    k, v = _heads_first(k, columns), _heads_first(v, columns)
    there = jnp.broadcast_to(jnp.zeros(q.shape[2], jnp.int32), (len(q), q.shape[2]))
    padding = jnp.broadcast_to((jnp.arange(k.shape[2]) >= m).astype(jnp.int32), k.shape[::2][:2])
    blocks = pallas.BlockSizes(
        block_b=1, block_q=rows, block_k_major=columns, block_k=columns,
        block_q_major_dkv=rows, block_q_dkv=rows, block_k_major_dkv=columns, block_k_dkv=columns,
        block_q_dq=rows, block_k_major_dq=columns, block_k_dq=columns,
    )  # fmt: skip
    out = pallas.flash_attention(
        q, k, v, segment_ids=pallas.SegmentIds(there, padding), sm_scale=q.shape[-1] ** -0.5,
        block_sizes=blocks,
    )  # fmt: skip
    return rearrange(out[:, :, :n], "b k n d -> b n k d")


def _heads_first(x, block: int):
    """(b, n, k, d) to (b, k, n', d), n' a multiple of `block`."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % block), (0, 0), (0, 0)))
    return rearrange(x, "b n k d -> b k n d")
