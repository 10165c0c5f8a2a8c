"""The one door to attention: which kernel runs, and how it is split over devices."""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import PartitionSpec as P

from jaxvid.core.attention_tpu import tpu_attention

SEQUENCE = ("view", "seq")  # tokens are split over both axes
Look = Literal["all", "own", "text"]


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
    local = functools.partial(_local, implementation=_chosen(implementation, q))
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


def view_attention(q, k, v, *, look: Look, sizes: tuple[int, int], implementation="auto"):
    """Attention of several views' tokens; `view` splits the views, `seq` the tokens of each.

    Args:
      q: (b, v, n, k, d) queries; scaled here by d ** -0.5.
      k, v: (b, v, m, k, d) keys and values.
      look: what a token looks at: "all" tokens of all views, those of its "own" view, or the "text"
        of its view, m keys that are not split within a view.
      sizes: how many views and tokens of a view there are; the rest of v and n is padding that
        makes them multiples of the devices, and nothing looks at it.
      implementation: as in `attention`; on TPUs, "auto" is a kernel that keeps no scores ("tpu").
    Returns:
      (b, v, n, k, d)
    """
    implementation = _chosen(implementation, q)
    if implementation == "xla" and _device().platform == "tpu":
        implementation = "tpu"  # XLA would hold the scores of all pairs of tokens
    local = functools.partial(_local, mask=None, n_valid=None, implementation=implementation)
    mesh = jax.sharding.get_abstract_mesh()
    split = {axis: mesh.shape.get(axis, 1) for axis in SEQUENCE}

    def per_device(q, k, v):
        if look == "all":
            k, v = (_gather_all(x, split, sizes) for x in (k, v))
        elif look == "own":
            k, v = (_gather_own(x, split, sizes) for x in (k, v))
        else:
            k, v = (rearrange(x, "b v m k d -> (b v) m k d") for x in (k, v))
        views = q.shape[1]
        if look == "all":
            out = local(rearrange(q, "b v n k d -> b (v n) k d"), k, v)
            return rearrange(out, "b (v n) k d -> b v n k d", v=views)
        out = local(rearrange(q, "b v n k d -> (b v) n k d"), k, v)
        return rearrange(out, "(b v) n k d -> b v n k d", v=views)

    if max(mesh.shape.values(), default=1) == 1:
        return per_device(q, k, v)
    tokens = P("data", *SEQUENCE, "tensor", None)
    keys = P("data", "view", None, "tensor", None) if look == "text" else tokens
    sharded = jax.shard_map(
        per_device,
        in_specs=(tokens, keys, keys),
        out_specs=tokens,
        check_vma=implementation != "tpu",  # which its kernel does not know of
    )
    return sharded(q, k, v)


def _gather_all(x, split: dict, sizes: tuple[int, int]):
    """Keys (b, v, n, k, d) of a device to those of all (b, m, k, d); their order has no meaning."""
    views, tokens = x.shape[1:3]
    x = rearrange(x, "b v n k d -> b (v n) k d")
    if max(split.values()) > 1:
        x = jax.lax.all_gather(x, SEQUENCE, axis=1, tiled=True)
    whole = (views * split["view"], tokens * split["seq"])
    if whole == sizes:
        return x
    parts = {"p": split["view"], "q": split["seq"], "v": views}
    x = rearrange(x, "b (p q v n) k d -> b (p v) (q n) k d", **parts)
    return rearrange(x[:, : sizes[0], : sizes[1]], "b v n k d -> b (v n) k d")


def _gather_own(x, split: dict, sizes: tuple[int, int]):
    """Keys (b, v, n, k, d) of a device's views, from those who have a part of them."""
    x = rearrange(x, "b v n k d -> (b v) n k d")
    if split["seq"] > 1:
        x = jax.lax.all_gather(x, "seq", axis=1, tiled=True)
    return x[:, : sizes[1]]


def batch_attention(q, k, v, mask=None, *, implementation="auto"):
    """Attention within each entry of a batch that is split over data, views and sequence.

    Args:
      q: (b, n, k, d) queries; scaled here by d ** -0.5. Any b: entries of zeros are added so that
        the devices share them evenly.
      k, v: (b, m, k, d) keys and values.
      mask: (1, 1, n, m), True where attention is allowed; None allows all.
    Returns:
      (b, n, k, d)
    """
    local = functools.partial(_local, n_valid=None, implementation=_chosen(implementation, q))
    mesh = jax.sharding.get_abstract_mesh()
    devices = math.prod(mesh.shape.get(axis, 1) for axis in ("data", *SEQUENCE))
    if devices == 1:
        return local(q, k, v, mask)
    missing = -len(q) % devices
    padded = [jnp.pad(x, ((0, missing), (0, 0), (0, 0), (0, 0))) for x in (q, k, v)]
    batch = P(("data", *SEQUENCE), None, "tensor", None)
    specs = (batch, batch, batch, None if mask is None else P())
    return jax.shard_map(local, in_specs=specs, out_specs=batch)(*padded, mask)[: len(q)]


def _local(q, k, v, mask, n_valid, implementation):
    if implementation == "tpu":
        return tpu_attention(q, k, v)
    return jax.nn.dot_product_attention(
        q, k, v, mask=mask, key_value_seq_lengths=n_valid, implementation=implementation
    )


def _chosen(implementation: str, q) -> str:
    return _fastest(q) if implementation == "auto" else implementation


def _fastest(q) -> str:
    """cuDNN takes half precision with head widths that are multiples of 8, up to 128."""
    fits = q.dtype.itemsize == 2 and q.shape[-1] in range(8, 129, 8)
    return "cudnn" if fits and _on_nvidia() else "xla"


def _on_nvidia() -> bool:
    device = _device()
    return device.platform in ("gpu", "cuda") and "NVIDIA" in device.device_kind


def _device():
    """What the code is for: the devices of the mesh, which need not be there, or JAX's."""
    return jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
