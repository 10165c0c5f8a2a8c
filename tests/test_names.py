"""Texts as path components: there and back, safe, never two alike."""

import random

import pytest

from jaxvid.runs.names import LONGEST, component, original, pair_names
from jaxvid.runs.requests import check_relative

AWKWARD = (
    *("", ".", "..", "...", "/", "../../etc/passwd", "a/b", "a\\b", "%", "%2F", "%~", "a%5Fb"),
    *("line\nbreak", "tab\t", "nul\0", " lead", "trail ", " ", "a b", ".hidden", "-rf", "~"),
    *("ünïcode", "夜の雨", "e\u0301", "é", "\u202egpj", "\u2028", "\ud800", "🚗", "con:aux?*|<>"),
    *(".unfinished-x", "x" * 300, "x" * 301, "夜" * 100, "/" * 100, "manifest.jsonl"),
)


def texts(count):
    rng = random.Random(0)
    alphabet = "ab_./\\% \n\0é夜\ud800\u202e~-"
    yield from AWKWARD
    yield from ("".join(rng.choices(alphabet, k=rng.randrange(9))) for _ in range(count))


def test_names_are_safe_distinct_and_reversible():
    wanted = set(texts(5000))
    names = {text: component(text) for text in wanted}
    assert len(set(names.values())) == len(wanted)
    for text, name in names.items():
        check_relative(name, "name")
        assert "/" not in name and len(name.encode()) <= LONGEST and name.isprintable()
        if "%~" not in name:
            assert original(name) == text
    assert component("night rain, 2 km") == "night rain, 2 km"
    assert component("夜の雨") == "夜の雨"


@pytest.mark.parametrize("name", ["a/b", "%2f", "%zz", ".x", component("x" * 300)])
def test_foreign_names_are_refused(name):
    with pytest.raises(ValueError):
        original(name)


def test_pairs_never_meet():
    pairs = [("a", "b_c"), ("a_b", "c"), ("a", "b"), ("a_b_c", ""), ("", "a_b")]
    names = pair_names(pairs)
    assert names[:3] == ["a_b%5Fc", "a_b_c", "a_b"]
    many = [(a, b) for a in set(texts(60)) for b in set(texts(60))]
    names = pair_names(many)
    assert len(set(names)) == len(many)
    for name, pair in zip(names, many, strict=True):
        check_relative(name, "name")
        assert len(name.encode()) <= LONGEST
        assert "%~" in name or original(name) == "_".join(pair)
