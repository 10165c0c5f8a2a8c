"""The conversion engine loses nothing, in either direction, and lists what does not fit."""

import jax
import numpy as np
import pytest

from jaxvid.core.convert import (
    CONV2D,
    CONV3D,
    TRANSPOSE,
    Rule,
    Transform,
    natural,
    to_ours,
    to_theirs,
)

RULES = (
    Rule(r"{side:in|out}.{i:\d+}.{j:\d+}.weight", "net/{side}_{i}_{j}/kernel", CONV2D),
    Rule(r"blocks.{layer:\d+}.attn.{x:[qk]}.weight", "blocks/attn/{x}/kernel", TRANSPOSE),
    Rule(r"blocks.{layer:\d+}.attn.{x:[qk]}.bias", "blocks/attn/{x}/bias", None),
    Rule("stem.weight", "stem/kernel", CONV3D),
    Rule("{name}.counter", None),
)


def upstream(layers=11):
    random = np.random.default_rng(0)
    shapes = {"stem.weight": (4, 3, 1, 2, 5), "in.0.1.weight": (4, 3, 2, 5)}
    shapes |= {f"out.{i}.10.weight": (2, 3, 1, 1) for i in (2, 10)}
    for i in range(layers):
        shapes |= {f"blocks.{i}.attn.{x}.weight": (4, 6) for x in "qk"}
        shapes |= {f"blocks.{i}.attn.{x}.bias": (4,) for x in "qk"}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def shapes_of(tree):
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), tree)


def test_layouts_and_places():
    theirs = upstream()
    ours = to_ours(theirs, RULES)
    assert ours["stem"]["kernel"].shape == (1, 2, 5, 3, 4)
    assert ours["net"]["in_0_1"]["kernel"].shape == (2, 5, 3, 4)
    assert set(ours["net"]) == {"in_0_1", "out_2_10", "out_10_10"}
    assert ours["blocks"]["attn"]["q"]["kernel"].shape == (11, 6, 4)
    np.testing.assert_array_equal(
        ours["blocks"]["attn"]["q"]["kernel"][10], theirs["blocks.10.attn.q.weight"].T
    )


def test_round_trip_is_bit_exact_whatever_the_order():
    theirs = upstream()
    shuffled = {name: theirs[name] for name in sorted(theirs, reverse=True)}
    ours = to_ours(shuffled, RULES, expected=shapes_of(to_ours(theirs, RULES)))
    back = to_theirs(ours, RULES, expected=theirs)
    assert list(back) == list(theirs)
    assert all(back[name].tobytes() == theirs[name].tobytes() for name in theirs)
    assert list(to_theirs(ours, RULES)) == sorted(theirs, key=natural)


def test_left_out_tensors_are_named_in_the_table():
    theirs = upstream()
    assert "bn" not in to_ours({**theirs, "bn.counter": np.array(1)}, RULES)


def test_the_first_rule_that_fits_wins():
    rules = (Rule("a.0", "x_0"), Rule(r"a.{i:\d+}", "y_{i}"), Rule(r"b.{i:\d+}", "x_{i}"))
    theirs = {"a.0": np.zeros(1), "a.1": np.ones(1), "b.1": np.ones(2)}
    ours = to_ours(theirs, rules)
    assert list(ours) == ["x_0", "y_1", "x_1"]
    assert list(to_theirs(ours, rules)) == ["a.0", "a.1", "b.1"]


def test_own_transforms():
    squeeze = Transform(lambda a: a[0], lambda a: a[None])
    ours = to_ours({"e": np.ones((1, 2))}, [Rule("e", "e", squeeze)])
    assert to_theirs(ours, [Rule("e", "e", squeeze)])["e"].shape == (1, 2)


def without(name):
    theirs = upstream()
    del theirs[name]
    return theirs


EXPECTED = shapes_of(to_ours(upstream(), RULES))
BAD = {
    "left over": ({**upstream(), "extra.bias": np.ones(1)}, "no rule takes 1: extra.bias"),
    "many left over": ({f"x.{i}": np.ones(1) for i in range(25)}, "no rule takes 25: .*15 more"),
    "unfilled": (without("stem.weight"), "nothing fills 1: stem/kernel"),
    "unneeded": (
        {**upstream(), "in.7.7.weight": np.ones((1, 1, 1, 1))},
        r"the network lacks 1: net/in_7_7/kernel \(from in.7.7.weight\)",
    ),
    "gap": (without("blocks.3.attn.q.bias"), r"blocks/attn/q/bias needs layers 0 to 9"),
    "fewer layers": (upstream(5), r"other shapes 4: .*\(5, 6, 4\), not \(11, 6, 4\)"),
    "shape": ({**upstream(), "in.0.1.weight": np.ones((4, 3, 2, 9))}, "net/in_0_1/kernel"),
    "ragged": ({**upstream(), "blocks.3.attn.q.bias": np.ones(9)}, "layers .* different shapes"),
    "duplicate": (
        {**upstream(), "blocks.03.attn.q.bias": np.ones(4)},
        "both blocks.3.attn.q.bias and blocks.03",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_listed(case):
    theirs, message = BAD[case]
    with pytest.raises(ValueError, match=message) as error:
        to_ours(theirs, RULES, expected=EXPECTED)
    assert "\n" not in str(error.value)


def test_what_does_not_fit_is_listed_on_the_way_back():
    ours = to_ours(upstream(), RULES)
    with pytest.raises(ValueError, match="no rule takes 1: head/bias"):
        to_theirs({**ours, "head": {"bias": np.ones(1)}}, RULES)
    with pytest.raises(ValueError, match=r"nothing fills 1: new; they lack 1: stem\.weight"):
        to_theirs(ours, RULES, expected={**without("stem.weight"), "new": np.ones(1)})
    rules = [Rule("one", "x"), Rule("one", "y")]
    with pytest.raises(ValueError, match="would become one"):
        to_theirs({"x": np.ones(1), "y": np.ones(1)}, rules)


@pytest.mark.parametrize("templates", [("{i}.{i}", "{i}"), ("a", "{i}"), ("{i}.{j}", "a")])
def test_tables_with_mistakes_are_refused(templates):
    with pytest.raises(ValueError, match="placeholder"):
        Rule(*templates)
