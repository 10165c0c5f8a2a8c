"""Multiplications and additions of a traced function, counted from its shapes.

Only products count: matrix products, convolutions and fused attention. It is the work that the
mathematics asks for, over all devices together, whatever a compiler makes of it.
"""

import math
from collections import Counter

from jax.extend import core

HALF = ("bfloat16", "float16")
ATTENTION = {  # products of queries x keys x width; the gradient computes the scores again
    "dot_product_attention_fwd_wrapper": 2,
    "dot_product_attention_bwd_wrapper": 5,
}
KERNEL = "tpu_attention"  # a function of (b, n, k, d) queries and keys around a kernel
BATCHED = "products over heads outside of kernels"


def count(jaxpr) -> Counter:
    """FLOPs by type of the factors ("bfloat16", "float32").

    Besides, under BATCHED, how many matrix products with two batch axes or more are run: those of
    attention that no fused kernel computes. A loop of unknown length counts once, a branch as its
    dearest side.
    """
    total = Counter()
    for equation in jaxpr.eqns:
        total += _of(equation)
    return total


def _of(equation) -> Counter:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _product(equation)
    if name == "conv_general_dilated":
        return _convolution(equation)
    if name in ATTENTION:
        q, k = (v.aval for v in equation.invars[:2])
        return Counter({_kind(q): 2 * ATTENTION[name] * math.prod(q.shape) * k.shape[1]})
    if name in ("jit", "pjit") and params["name"] == KERNEL:
        heads = [v.aval for v in equation.invars if v.aval.ndim == 4]  # none where JAX cut it up
        if not heads:
            return Counter()
        return Counter({_kind(heads[0]): 4 * math.prod(heads[0].shape) * heads[1].shape[1]})
    if name == "cond":
        return max((count(branch.jaxpr) for branch in params["branches"]), key=_flops)
    found = Counter()
    for inner in core.jaxprs_in_params(params):
        found += count(inner)
    if name == "scan":
        return Counter({kind: n * params["length"] for kind, n in found.items()})
    if name == "shard_map":  # inside are the shapes of one device
        devices = math.prod(params["mesh"].shape[axis] for axis in params["newly_manual_axes"])
        return Counter({kind: n * (1 if kind == BATCHED else devices) for kind, n in found.items()})
    return found


def _product(equation) -> Counter:
    left = equation.invars[0].aval
    (contracted, _), (batch, _) = equation.params["dimension_numbers"]
    size = math.prod(equation.outvars[0].aval.shape)
    flops = 2 * size * math.prod(left.shape[axis] for axis in contracted)
    return Counter({_kind(left): flops} | ({BATCHED: 1} if len(batch) > 1 else {}))


def _convolution(equation) -> Counter:
    """Products with the zeros of padding count, those with zeros between pixels do not."""
    params, kernel = equation.params, equation.invars[1].aval
    _, inputs, *window = params["dimension_numbers"].rhs_spec
    taps = kernel.shape[inputs] * math.prod(kernel.shape[axis] for axis in window)
    spread = math.prod(params["lhs_dilation"])
    flops = 2 * math.prod(equation.outvars[0].aval.shape) * taps // spread
    return Counter({_kind(kernel): flops})


def _kind(array) -> str:
    return "bfloat16" if array.dtype.name in HALF else "float32"


def _flops(found: Counter) -> int:
    return found["bfloat16"] + found["float32"]
