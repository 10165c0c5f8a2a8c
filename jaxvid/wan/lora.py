"""Low-rank adapters (LoRA, arXiv:2106.09685) as trees of two thin matrices per linear layer.

A tree of adapters mirrors the parameters: where those have `.../q/kernel` (l, in, out), it has
`.../q/a` (l, in, r) and `.../q/b` (l, r, out). To sample, they are merged into the kernels. To
train, they go in beside the kernels, where `Dense` finds them: merged into a frozen kernel in
bfloat16, most of what an update changes would be rounded away.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxvid.core.noise import uniform

TARGETS = r"blocks/((self_attn|cross_attn)/[qkvo]|ffn_in|ffn_out)"  # Wan: all linear ones of blocks


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Size and strength of adapters; the defaults are LongLive's."""

    rank: int = 256
    alpha: float = 256.0

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"LoRA rank={self.rank} must be at least 1")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class Dense(nn.Dense):
    """A linear layer; an adapter that `beside` put next to its kernel works in the layer's type."""

    def __call__(self, x):
        """x: (..., in); returns (..., out)."""
        y = super().__call__(x)
        if not self.has_variable("params", "a"):
            return y
        a, b = (self.get_variable("params", name).astype(y.dtype) for name in "ab")
        return y + x.astype(y.dtype) @ a @ b


def beside(params: Mapping, lora: Mapping, scale: float) -> dict:
    """Parameters with a and scale * b next to the kernels of `Dense` layers; raises as `merge`."""
    flat = flatten_dict(params, sep="/")
    for place, _, a, b in _adapted(flat, lora):
        flat |= {f"{place}/a": a, f"{place}/b": scale * b}
    return unflatten_dict(flat, sep="/")


def merge(params: Mapping, lora: Mapping, scale: float) -> dict:
    """Parameters with kernel + scale * a @ b, added in float32 and kept in the kernel's type.

    Raises:
      ValueError: an adapter for a layer that the parameters lack, or of another size.
    """
    flat = flatten_dict(params, sep="/")
    for place, kernel, a, b in _adapted(flat, lora):
        update = jnp.matmul(a.astype(jnp.float32), b.astype(jnp.float32), precision="highest")
        merged = kernel.astype(jnp.float32) + scale * update
        flat[f"{place}/kernel"] = merged.astype(kernel.dtype)
    return unflatten_dict(flat, sep="/")


def _adapted(flat: Mapping, lora: Mapping) -> Iterator[tuple]:
    """Each adapted layer's path, kernel, a and b; flat: parameters by path."""
    adapters = flatten_dict(lora, sep="/")
    for place in sorted({name.rpartition("/")[0] for name in adapters}):
        kernel, a, b = flat.get(f"{place}/kernel"), adapters[f"{place}/a"], adapters[f"{place}/b"]
        if kernel is None:
            raise ValueError(f"the LoRA adapts {place}, which the network does not have")
        if kernel.shape != (*a.shape[:-1], b.shape[-1]):
            raise ValueError(
                f"the LoRA is of another network: {place} is {kernel.shape}, "
                f"its adapters are {a.shape} and {b.shape}"
            )
        yield place, kernel, a, b


def rank_of(lora: Mapping) -> int:
    """The rank of a tree of adapters; raises ValueError if it is not one rank."""
    flat = flatten_dict(lora, sep="/")
    ranks = {a.shape[-1] for name, a in flat.items() if name.endswith("/a")}
    ranks |= {b.shape[-2] for name, b in flat.items() if name.endswith("/b")}
    if len(ranks) != 1:
        raise ValueError(f"the LoRA has ranks {sorted(ranks)}: it has to have exactly one")
    return ranks.pop()


def initial_adapters(params: Mapping, config: LoraConfig, key, targets: str = TARGETS) -> dict:
    """Fresh adapters of the layers that `targets` matches: a as PEFT's, b zero, so no change."""
    adapters = {}
    for place in _targets(params, targets):
        key, this = jax.random.split(key)
        layers, inputs, outputs = flatten_dict(params, sep="/")[f"{place}/kernel"].shape
        bound = 1 / math.sqrt(inputs)
        shape = (layers, inputs, config.rank)
        adapters[f"{place}/a"] = uniform(this, shape, bound)
        adapters[f"{place}/b"] = jnp.zeros((layers, config.rank, outputs))
    return unflatten_dict(adapters, sep="/")


def abstract_adapters(params: Mapping, config: LoraConfig) -> dict:
    """Shapes of the adapters, without computing them."""
    return jax.eval_shape(lambda: initial_adapters(params, config, jax.random.key(0)))


def _targets(params: Mapping, targets: str) -> list[str]:
    names = (name.removesuffix("/kernel") for name in flatten_dict(params, sep="/"))
    return sorted(name for name in names if re.fullmatch(targets, name))
