"""The one door to attention: which kernel runs, and how it is split over devices."""

import functools

import jax
from jax.sharding import PartitionSpec as P

SEQUENCE = ("view", "seq")  # tokens are split over both axes


def attention(q, k, v, mask=None, *, implementation="auto"):
    """Softmax attention over the whole sequence, whatever part of it each device holds.

    Each device keeps its own queries and gathers all keys and values.

    Args:
      q: (b, n, k, d) queries; scaled here by d ** -0.5.
      k: (b, m, k, d) keys.
      v: (b, m, k, d) values.
      mask: (b or 1, 1, n, m), True where attention is allowed; None allows all.
      implementation: "xla", "cudnn", or "auto" (cuDNN on NVIDIA in half precision, else XLA).
    Returns:
      (b, n, k, d)
    """
    if implementation == "auto":
        implementation = _fastest(q)
    local = functools.partial(jax.nn.dot_product_attention, implementation=implementation)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or all(mesh.shape[axis] == 1 for axis in SEQUENCE):
        return local(q, k, v, mask=mask)

    def per_device(q, k, v, mask):
        k, v = (jax.lax.all_gather(x, SEQUENCE, axis=1, tiled=True) for x in (k, v))
        return local(q, k, v, mask=mask)

    tokens = P("data", SEQUENCE, "tensor", None)
    rows = None
    if mask is not None:
        rows = P("data" if mask.shape[0] > 1 else None, None, SEQUENCE, None)
    sharded = jax.shard_map(per_device, in_specs=(tokens, tokens, tokens, rows), out_specs=tokens)
    return sharded(q, k, v, mask)


def _fastest(q) -> str:
    """cuDNN takes half precision with head widths that are multiples of 8, up to 128."""
    fits = q.dtype.itemsize == 2 and q.shape[-1] in range(8, 129, 8)
    return "cudnn" if fits and _on_nvidia() else "xla"


def _on_nvidia() -> bool:
    """Whether the code is for NVIDIA GPUs: those of the mesh, which need not be there, or JAX's."""
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
    return device.platform in ("gpu", "cuda") and "NVIDIA" in device.device_kind
