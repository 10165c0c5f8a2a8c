"""Attention on TPUs: the kernel's numbers, and that it can be split over every axis of a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxvid.core.attention import view_attention
from jaxvid.core.attention_tpu import tpu_attention
from jaxvid.core.mesh import MeshConfig, make_mesh


def test_the_kernel_for_tpus_is_attention():
    """In Pallas' interpreter; lengths that are no multiple of a block."""
    random = np.random.default_rng(0)
    q, k, v = (random.normal(size=(2, n, 2, 128)).astype(np.float32) for n in (5, 150, 150))
    with pltpu.force_tpu_interpret_mode():
        found = tpu_attention(q, k, v)
    np.testing.assert_allclose(found, jax.nn.dot_product_attention(q, k, v), atol=2e-5)


@pytest.mark.parametrize("split", [{"data": 2}, {"tensor": 2}, {"seq": 2}, {"data": 1}], ids=str)
@pytest.mark.parametrize("look", ["all", "own", "text"])
def test_programs_for_tpus_split_over_any_axis(split, look):
    """Lowered for a TPU that is not there: the kernel does not split itself."""
    sizes = {"data": 1} | split
    mesh = make_mesh(MeshConfig(**sizes), jax.devices()[: max(sizes.values())])
    place = NamedSharding(mesh, P("data", None, None, "tensor"))
    q = jax.ShapeDtypeStruct((2, 2, 8, 2, 128), jnp.bfloat16, sharding=place)
    attend = functools.partial(view_attention, look=look, sizes=(2, 8), implementation="tpu")
    with jax.set_mesh(mesh):
        program = jax.jit(attend).trace(q, q, q).lower(lowering_platforms=("tpu",))
    assert "tpu_custom_call" in program.as_text()
