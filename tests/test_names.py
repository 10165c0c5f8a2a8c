"""Texts as path components: there and back, safe, never two alike."""

import dataclasses
import random

import pytest

from jaxvid.runs.names import LONGEST, apart, component, original, pair_name
from jaxvid.runs.requests import Request, check_relative, check_requests

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
    firsts = {"a", "a_b", "a_b_c", ""}
    pairs = [("a", "b_c"), ("a_b", "c"), ("a", "b"), ("a", "x_y"), ("a_b", None), ("a_b_c", "")]
    names = ["a_b%5Fc", "a_b_c", "a_b", "a_x_y", "a%5Fb", "a_b_c_"]
    assert [pair_name(*pair, firsts) for pair in pairs] == names
    assert pair_name("a", "b_c", {"a"}) == "a_b_c" and pair_name("a_b", None, {"a_b"}) == "a_b"
    firsts = set(texts(60)) | {"a", "a_b", "b_a_"}
    many = [(a, b) for a in firsts for b in [*texts(60), "b_a", "a_", None]]
    many = list(dict.fromkeys(many))
    names = [pair_name(*pair, firsts) for pair in many]
    assert len(set(names)) == len(many)
    for name, (first, second) in zip(names, many, strict=True):
        check_relative(name, "name")
        assert len(name.encode()) <= LONGEST
        assert "%~" in name or original(name) == (first if second is None else f"{first}_{second}")


def test_requests_that_meet_others_fail_alone():
    make = lambda id, file: Request(id, 0, {"video": file})  # noqa: E731
    pairs = [("a", "1.mp4"), ("b", "1.mp4"), ("a", "2.mp4"), ("b", "3.mp4")]
    stated = [(f"line {i}", make(*pair)) for i, pair in enumerate(pairs, 1)]
    first, file, id, last = found = apart(stated, "change it")
    check_requests(dataclasses.replace(r, options={"fps": 1}) for r in found)
    assert not first.error and not last.error
    assert file.error == "line 2: its file '1.mp4' is that of line 1, too: change it"
    assert id.error == "line 3: its id 'a' is that of line 1, too: change it"
