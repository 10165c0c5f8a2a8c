"""The one door to attention: which kernel runs, and how it is split over devices."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

SEQUENCE = ("view", "seq")  # tokens are split over both axes


def attention(q, k, v, mask=None, *, n_valid=None, whole_keys: bool = False, implementation="auto"):
    """Softmax attention over the whole sequence, whatever part of it each device holds.

    Each device keeps its own queries and gathers all keys and values.

    Args:
      q: (b, n, k, d) queries; scaled here by d ** -0.5.
      k: (b, m, k, d) keys.
      v: (b, m, k, d) values.
      mask: (b or 1, 1, n, m), True where attention is allowed; None allows all.
      n_valid: () int, only the first n_valid keys are looked at; None allows all.
      whole_keys: keys and values are not split over devices (a cache or a prompt), so that
        nothing is gathered here.
      implementation: "xla", "cudnn", or "auto" (cuDNN on NVIDIA in half precision, else XLA).
    Returns:
      (b, n, k, d)
    """
    if implementation == "auto":
        implementation = _fastest(q)
    local = functools.partial(_local, implementation=implementation)
    if n_valid is not None:
        n_valid = jnp.broadcast_to(jnp.asarray(n_valid, jnp.int32), q.shape[:1])
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or all(mesh.shape[axis] == 1 for axis in SEQUENCE):
        return local(q, k, v, mask, n_valid)

    def per_device(q, k, v, mask, n_valid):
        if not whole_keys:
            k, v = (jax.lax.all_gather(x, SEQUENCE, axis=1, tiled=True) for x in (k, v))
        return local(q, k, v, mask, n_valid)

    tokens = P("data", SEQUENCE, "tensor", None)
    keys = P("data", None, "tensor", None) if whole_keys else tokens
    rows = None
    if mask is not None:
        rows = P("data" if mask.shape[0] > 1 else None, None, SEQUENCE, None)
    lengths = None if n_valid is None else P("data")
    specs = (tokens, keys, keys, rows, lengths)
    return jax.shard_map(per_device, in_specs=specs, out_specs=tokens)(q, k, v, mask, n_valid)


def _local(q, k, v, mask, n_valid, implementation):
    return jax.nn.dot_product_attention(
        q, k, v, mask=mask, key_value_seq_lengths=n_valid, implementation=implementation
    )


def _fastest(q) -> str:
    """cuDNN takes half precision with head widths that are multiples of 8, up to 128."""
    fits = q.dtype.itemsize == 2 and q.shape[-1] in range(8, 129, 8)
    return "cudnn" if fits and _on_nvidia() else "xla"


def _on_nvidia() -> bool:
    """Whether the code is for NVIDIA GPUs: those of the mesh, which need not be there, or JAX's."""
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
    return device.platform in ("gpu", "cuda") and "NVIDIA" in device.device_kind
