"""The Cosmos network: split over devices, variants, precision, gradients, initialisation, files."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from small_cosmos import CONFIG, CROSS, inputs, parameters, velocity
from small_wan import quick_jit

from jaxvid.core import torch_file
from jaxvid.core.convert import to_theirs
from jaxvid.core.mesh import MeshConfig, make_mesh, shardings
from jaxvid.cosmos import dit, files, keys, losses, model
from jaxvid.cosmos.dit import DitConfig, tiny

run = quick_jit(velocity, static_argnums=0)
SEVEN = inputs(CONFIG, range(7))


@pytest.fixture(scope="module")
def whole():
    """Parameters, and the velocity of seven views on one device."""
    params = parameters(CONFIG)
    return params, run(CONFIG, params, **SEVEN)


def on_mesh(config, params, arguments, **sizes):
    """The velocity on devices of a mesh, parameters in their places."""
    sizes = {"data": 1, **sizes}
    mesh = make_mesh(MeshConfig(**sizes), jax.devices()[: int(np.prod(list(sizes.values())))])
    params = jax.device_put(params, shardings(params, dit.RULES, mesh))
    with jax.set_mesh(mesh):
        return np.asarray(run(config, params, **arguments))


SPLITS = [{"seq": 8}, {"view": 7}]  # 7 views of 12 tokens: with padding and without
MORE = [
    *({"seq": 2}, {"seq": 4}, {"seq": 7}, {"view": 8}, {"view": 4}, {"view": 2, "seq": 4}),
    {"view": 2, "seq": 2, "tensor": 2},
]
SPLITS += [pytest.param(split, marks=pytest.mark.slow) for split in MORE]


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_seven_views_on_any_devices(whole, split):
    params, expected = whole
    found = on_mesh(CONFIG, params, SEVEN, **split)
    np.testing.assert_allclose(found, expected, atol=2e-5)  # float32; the order of sums differs


@pytest.mark.parametrize(
    "split", [{"seq": 2}, pytest.param({"view": 2}, marks=pytest.mark.slow)], ids=str
)
def test_three_views_on_two_devices(whole, split):
    arguments = inputs(CONFIG, [0, 3, 6])
    found = on_mesh(CONFIG, whole[0], arguments, **split)
    expected = run(CONFIG, whole[0], **arguments)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    "split",
    [{"view": 2, "seq": 2}, pytest.param({"data": 2, "seq": 3}, marks=pytest.mark.slow)],
    ids=str,
)
def test_cross_view_variant_on_any_devices(split):
    params, arguments = parameters(CROSS), inputs(CROSS, [0, 1, 2], frames=3, batch=2)
    found = on_mesh(CROSS, params, arguments, **split)
    np.testing.assert_allclose(found, run(CROSS, params, **arguments), atol=2e-5)


def test_order_of_views_is_only_an_order(whole):
    params, expected = whole
    order = np.array([4, 0, 6, 2, 1, 5, 3])
    turned = {n: a if n == "timestep" else a[:, order] for n, a in SEVEN.items() if n != "view_ids"}
    found = run(CONFIG, params, **turned, view_ids=order)
    np.testing.assert_allclose(found, expected[:, order], atol=2e-5)


def test_text_and_control_belong_to_a_view(whole):
    """One view's words and control reach all views, but not in the same way."""
    params, expected = whole
    for name in ("text", "control"):
        changed = dict(SEVEN)
        changed[name] = SEVEN[name].copy()
        changed[name][:, 2] += 1
        moved = np.abs(run(CONFIG, params, **changed) - expected).mean((0, 2, 3, 4, 5))
        assert moved.argmax() == 2 and moved.min() > 0


def test_cross_view_attention_follows_the_neighbours():
    """View 0 looks at both others, view 1 at view 0, view 2 at nobody; in one layer, one step."""
    config = dataclasses.replace(CROSS, depth=1, control_every=1)
    params, arguments = parameters(config), inputs(config, [0, 1, 2])
    expected = run(config, params, **arguments)
    for view, seen_by in enumerate([[1, 1, 0], [1, 1, 0], [1, 0, 1]]):
        latents = arguments["latents"].copy()
        latents[:, view] += 1
        moved = run(config, params, **arguments | {"latents": latents}) != expected
        np.testing.assert_array_equal(moved.any((0, 2, 3, 4, 5)), seen_by)


@pytest.mark.slow
def test_views_in_another_slot_keep_their_neighbours():
    params, order = parameters(CROSS), np.array([2, 0])
    arguments = inputs(CROSS, [0, 2])
    turned = {n: a if a.ndim == 1 else a[:, ::-1] for n, a in arguments.items()}
    found = run(CROSS, params, **turned | {"view_ids": order})
    np.testing.assert_allclose(found[:, ::-1], run(CROSS, params, **arguments), atol=2e-5)


def test_hints_are_placed():
    assert DitConfig().hinted == (0, 7, 14, 21)
    assert tiny(depth=5, control_every=2).hinted == (0, 2, 4)
    assert tiny(depth=5, control_every=2, control_layers="first_n").hinted == (0, 1)


def test_bfloat16_is_near_float32(whole):
    params, expected = whole
    half = dataclasses.replace(CONFIG, dtype="bfloat16")
    params = jax.tree.map(lambda a: a.astype(ml_dtypes.bfloat16), params)
    found = run(half, params, **SEVEN)
    assert found.dtype == jnp.float32
    error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    assert 1e-4 < error < 0.03  # 8 bits, some layers


@pytest.mark.slow
def test_gradient_of_control_branch_with_remat_and_shards(whole):
    params = whole[0]
    arguments = {n: a for n, a in SEVEN.items() if n != "latents"}
    latents, given = SEVEN["latents"], SEVEN["given"]
    noise = np.random.default_rng(3).normal(size=latents.shape).astype(np.float32)
    trained, frozen = losses.split(params)
    assert set(trained) == set(dit.CONTROL)

    def gradient(config):
        def loss(trained):
            def predict(x, timestep):
                both = arguments | {"latents": x, "timestep": timestep}
                return velocity(config, frozen | trained, **both)

            return losses.flow_matching(predict, latents, noise, jnp.array([0.7]), given)[0]

        return quick_jit(jax.grad(loss))

    expected = gradient(CONFIG)(trained)
    mesh = make_mesh(MeshConfig(data=1, seq=8))
    placed = jax.device_put(trained, shardings(trained, dit.FSDP_RULES, mesh))
    with jax.set_mesh(mesh):
        found = gradient(dataclasses.replace(CONFIG, remat=True))(placed)
    for name, leaf in flatten_dict(found, sep="/").items():
        wanted = flatten_dict(expected, sep="/")[name]
        np.testing.assert_allclose(leaf, wanted, rtol=2e-4, atol=2e-6, err_msg=name)


def test_released_network_has_its_count_and_fits_the_rules():
    params = model.abstract_parameters(DitConfig())
    assert sum(a.size for a in jax.tree.leaves(params)) == 2_387_995_697
    mesh = make_mesh(MeshConfig(data=2, seq=2, tensor=2))
    places = shardings(params, dit.RULES, mesh)
    assert not places["blocks"]["self_attn"]["q"]["kernel"].is_fully_replicated
    places = shardings(params, dit.FSDP_RULES, mesh)
    local = jax.tree.map(lambda a, place: np.prod(place.shard_shape(a.shape)), params, places)
    assert sum(jax.tree.leaves(local)) < 2_388_000_000 / 4 * 1.01  # all but norms and biases


def test_initial_parameters():
    params = model.initial_parameters(CROSS, jax.random.key(0))
    kernel = np.asarray(params["blocks"]["mlp_in"]["kernel"])
    deviation = CROSS.width**-0.5
    assert np.abs(kernel).max() <= 3 * deviation
    assert kernel.std() == pytest.approx(0.9866 * deviation, rel=0.03)  # of a normal cut at 3
    zero = [params["control_in"], params["control_blocks"]["after"]]
    zero += [params["blocks"][name]["up"] for name in params["blocks"] if "modulate" in name]
    across, within = (params["blocks"][name] for name in ("cross_view_attn", "self_attn"))
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves([*zero, across["o"]]))
    np.testing.assert_array_equal(across["q"]["kernel"], within["q"]["kernel"])


def test_a_control_branch_starts_as_the_base_without_hints(whole):
    fresh = model.control_from_base(CONFIG, whole[0])
    np.testing.assert_array_equal(
        fresh["control_blocks"]["mlp_in"]["kernel"], fresh["blocks"]["mlp_in"]["kernel"][:1]
    )
    alone = run(CONFIG, fresh, **SEVEN)
    np.testing.assert_array_equal(alone, run(CONFIG, fresh, **SEVEN, control_scale=0.0))


BAD = [
    ({"heads": 3}, "no even head width of 12 or more"),
    ({"control_every": 0}, "leaves none of 2 blocks a hint"),
    ({"neighbours": ((1,),)}, "neighbours are given for 1 of 7 views"),
    ({"stretch": (1.0, 0.0, 1.0)}, "three positive numbers"),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=str)
def test_shapes_that_cannot_be(change, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **change)
    with pytest.raises(ValueError, match="no multiple of the patch 2"):
        CONFIG.grid(2, 5, 4)


# --- files -----------------------------------------------------------------------------------


def state_dict(params, dtype=np.float32) -> dict:
    """Upstream's names of a network."""
    theirs = to_theirs(params, keys.RULES)
    return {n: np.ascontiguousarray(a.astype(dtype)) for n, a in theirs.items()}


@pytest.fixture(scope="module")
def theirs(whole):
    return state_dict(whole[0])


def equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_ema_is_taken_and_wrappers_are_taken_off(whole, theirs, tmp_path):
    names = lambda prefix: {  # noqa: E731
        prefix + n.replace("self_attn", "_checkpoint_wrapped_module.self_attn"): a
        for n, a in theirs.items()
    }
    content = {n: np.zeros_like(a) for n, a in names("net._orig_mod.").items()}
    content |= names("net_ema._orig_mod.")
    content |= {
        "net_ema.accum_iteration": np.array(3),
        "net_ema.pos_embedder_options.n_cameras_1.seq": np.arange(4.0),
        "net_ema.blocks.0.self_attn.q_norm._extra_state": np.zeros(0, np.uint8),
    }
    torch_file.save_pt(tmp_path / "model.pt", {"state_dict": content})
    params, config = files.read_network(tmp_path / "model.pt")
    assert config == dataclasses.replace(CONFIG, dtype="bfloat16")
    equal(params, whole[0])


@pytest.mark.parametrize("config", [CONFIG, CROSS], ids=["joint", "cross_view"])
def test_the_way_back_is_a_release(config, tmp_path):
    kind = "cosmos_multiview_crossview" if config.cross_view else "cosmos_multiview"
    content = {f"net.{n}": a for n, a in state_dict(parameters(config), ml_dtypes.bfloat16).items()}
    torch_file.save_pt(tmp_path / "ema_bf16.pt", content)
    params, info = files.convert([tmp_path / "ema_bf16.pt"], kind)
    back = files.revert(params, info)
    assert list(back) == sorted(back, key=lambda n: list(back).index(n)) and set(back) == set(
        content
    )
    for name, array in content.items():
        assert back[name].dtype == array.dtype and back[name].tobytes() == array.tobytes()
    assert files.network_of(info).hinted == config.hinted


@pytest.mark.parametrize("changes", [{}, {"stretch": (0.5, 2.0, 3.0), "timestep_scale": 1.0}])
def test_the_way_back_tells_settings_that_are_not_the_releases(changes, tmp_path):
    network = dataclasses.replace(CROSS, neighbours=((1,), (0, 2), (1,)), **changes)
    info = {"network": dataclasses.asdict(network)}
    content = files.revert(parameters(network), info)
    settings = files.needed_settings(content, info)
    found = keys.config_of(keys.network_tensors(content), settings)
    assert settings and dataclasses.replace(found, dtype=network.dtype) == network
    released = dataclasses.replace(found, neighbours=((1, 2), (0, 2), (0, 1)), timestep_scale=0.001)
    released = dataclasses.replace(released, stretch=(1.0, 3.0, 3.0))
    assert files.needed_settings(content, {"network": dataclasses.asdict(released)}) == {}


def broken(theirs, what):
    content = {f"net.{n}": a for n, a in theirs.items()}
    if what == "no control branch":
        return {n: a for n, a in content.items() if "control_blocks" not in n}
    if what == "a tensor more":
        return content | {"net.blocks.0.extra.weight": np.ones(2, np.float32)}
    if what == "a tensor less":
        return {n: a for n, a in content.items() if not n.endswith("blocks.1.mlp.layer1.weight")}
    return {"a": 1}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no control branch", "not a Cosmos multiview network with a control branch"),
        ("a tensor more", "no rule takes 1: blocks.0.extra.weight"),
        ("a tensor less", r"mlp_in/kernel \(1, 32, 32\), not \(2, 32, 32\)"),
        ("nothing", "holds no tensors of a network"),
    ],
)
def test_files_of_something_else(theirs, what, words, tmp_path):
    torch_file.save_pt(tmp_path / "a.pt", broken(theirs, what))
    with pytest.raises(ValueError, match=words) as caught:
        files.convert([tmp_path / "a.pt"])
    assert "\n" not in str(caught.value) and "a.pt" in str(caught.value)


def test_the_other_variant_is_named(theirs, tmp_path):
    torch_file.save_pt(tmp_path / "a.pt", theirs)
    with pytest.raises(ValueError, match=r"use --model=cosmos_multiview$"):
        files.convert([tmp_path / "a.pt"], "cosmos_multiview_crossview")
