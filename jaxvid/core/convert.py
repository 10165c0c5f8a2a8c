"""Names and layouts of other projects' tensors, to ours and back, bit for bit.

A table of rules says everything. The first rule that fits a name takes it; a name that no rule
takes, two names that end in one place, and a difference to the expected shapes are all errors.
"""

import dataclasses
import functools
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

PLACEHOLDER = re.compile(r"\{(\w+)(?::((?:[^{}]|\{[^{}]*\})*))?\}")
SHOWN = 10  # names listed in an error


class Transform(NamedTuple):
    """A change of layout and its inverse; both only move values."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


def _permute(*axes: int) -> Transform:
    inverse = tuple(int(axis) for axis in np.argsort(axes))
    return Transform(lambda a: np.transpose(a, axes), lambda a: np.transpose(a, inverse))


TRANSPOSE = _permute(1, 0)  # (out, in) -> (in, out)
CONV2D = _permute(2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
CONV3D = _permute(2, 3, 4, 1, 0)  # (out, in, t, h, w) -> (t, h, w, in, out)


@dataclasses.dataclass(frozen=True)
class Rule:
    r"""Where one kind of tensor goes.

    theirs: dotted name with placeholders `{name:regex}`; `{name}` fits anything without a dot.
    ours: name with "/" that repeats the placeholders as `{name}`; None leaves the tensor out for
      good (it does not come back). One placeholder may be missing here: it counts layers
      0, 1, ..., which are stacked on a new first axis.
    transform: change of layout of one tensor (before stacking), None if there is none.

    Example: Rule(r"blocks.{layer:\d+}.{x:q|k}.weight", "blocks/{x}/kernel", TRANSPOSE).
    """

    theirs: str
    ours: str | None
    transform: Transform | None = None

    def __post_init__(self):
        names = [match[1] for match in PLACEHOLDER.finditer(self.theirs)]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.theirs} repeats a placeholder")
        if self.ours is None:
            return
        used = {match[1] for match in PLACEHOLDER.finditer(self.ours)}
        if used - set(names) or len(set(names) - used) > 1:
            raise ValueError(f"the placeholders of {self.theirs} and {self.ours} do not agree")

    @functools.cached_property
    def patterns(self) -> dict[str, str]:
        """Placeholder name to regex."""
        return {m[1]: m[2] or r"[^./]+" for m in PLACEHOLDER.finditer(self.theirs)}

    @functools.cached_property
    def layer(self) -> str | None:
        """The placeholder that counts stacked layers."""
        used = {match[1] for match in PLACEHOLDER.finditer(self.ours or self.theirs)}
        return next((name for name in self.patterns if name not in used), None)

    @functools.cached_property
    def theirs_regex(self) -> re.Pattern:
        return self._regex(self.theirs)

    @functools.cached_property
    def ours_regex(self) -> re.Pattern:
        return self._regex(self.ours)

    def _regex(self, template: str) -> re.Pattern:
        parts, end, seen = [], 0, set()
        for match in PLACEHOLDER.finditer(template):
            name = match[1]
            parts.append(re.escape(template[end : match.start()]))
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>{self.patterns[name]})")
            seen.add(name)
            end = match.end()
        return re.compile("".join([*parts, re.escape(template[end:])]))


def _fill(template: str, values: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda match: values[match[1]], template)


def to_ours(state_dict: Mapping, rules: Sequence[Rule], expected=None) -> dict:
    """Our nested parameters from another project's flat mapping of names to arrays.

    Args:
      expected: nested dict of what our network needs (anything with `shape`), or None.
    Raises:
      ValueError: names left over on either side, two tensors for one place, gaps in stacked
        layers, other shapes than expected.
    """
    found: dict[str, dict[int | None, tuple[str, np.ndarray]]] = defaultdict(dict)
    unmatched = []
    for name, array in state_dict.items():
        rule, values = _first_match(rules, name, "theirs_regex")
        if rule is None:
            unmatched.append(name)
        elif rule.ours is not None:
            place = _fill(rule.ours, values)
            layer = None if rule.layer is None else int(values[rule.layer])
            if layer in found[place] or (
                found[place] and (layer is None) != (None in found[place])
            ):
                other = found[place].get(layer, next(iter(found[place].values())))[0]
                raise ValueError(f"both {other} and {name} would become {place}")
            array = np.asarray(array)
            found[place][layer] = (name, rule.transform.to_ours(array) if rule.transform else array)
    shapes = _shapes(expected) if expected is not None else None
    unfilled = sorted(set(shapes) - set(found)) if shapes is not None else []
    unneeded = sorted(set(found) - set(shapes)) if shapes is not None else []
    unneeded = [f"{place} (from {next(iter(found[place].values()))[0]})" for place in unneeded]
    _refuse({"no rule takes": unmatched, "nothing fills": unfilled, "the network lacks": unneeded})
    flat = {place: _stacked(place, layers) for place, layers in found.items()}
    if shapes is not None:
        _check_shapes({place: array.shape for place, array in flat.items()}, shapes)
    return unflatten_dict(flat, sep="/")


def to_theirs(tree: Mapping, rules: Sequence[Rule], expected: Mapping | None = None) -> dict:
    """The inverse of `to_ours`: the other project's flat mapping, in the order of the names.

    Args:
      expected: mapping of their names to anything with `shape`; it also gives the order.
    Raises:
      ValueError: as `to_ours`.
    """
    theirs: dict[str, np.ndarray] = {}
    unmatched = []
    for place, array in flatten_dict(tree, sep="/").items():
        rule, values = _first_match([r for r in rules if r.ours is not None], place, "ours_regex")
        if rule is None:
            unmatched.append(place)
            continue
        array = np.asarray(array)
        layers = [(values, array)]
        if rule.layer is not None:
            layers = [({**values, rule.layer: str(i)}, layer) for i, layer in enumerate(array)]
        for layer_values, layer in layers:
            name = _fill(rule.theirs, layer_values)
            if name in theirs:
                raise ValueError(f"two of our parameters, one of them {place}, would become {name}")
            theirs[name] = rule.transform.to_theirs(layer) if rule.transform else layer
    unfilled = [name for name in expected if name not in theirs] if expected is not None else []
    unneeded = [name for name in theirs if name not in expected] if expected is not None else []
    _refuse({"no rule takes": unmatched, "nothing fills": unfilled, "they lack": unneeded})
    if expected is not None:
        _check_shapes(
            {n: a.shape for n, a in theirs.items()}, {n: expected[n].shape for n in theirs}
        )
    return {name: theirs[name] for name in (expected or sorted(theirs, key=natural))}


def natural(name: str) -> list:
    """Sort key that puts block 10 after block 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _first_match(rules, name: str, side: str):
    for rule in rules:
        match = getattr(rule, side).fullmatch(name)
        if match:
            return rule, match.groupdict()
    return None, {}


def _stacked(place: str, layers: dict) -> np.ndarray:
    if None in layers:
        return layers[None][1]
    if sorted(layers) != list(range(len(layers))):
        raise ValueError(f"{place} needs layers 0 to {len(layers) - 1}, found {sorted(layers)}")
    arrays = [layers[i][1] for i in range(len(layers))]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(f"the layers of {place} have different shapes: {sorted(shapes)}")
    return np.stack(arrays)


def _shapes(tree) -> dict[str, tuple[int, ...]]:
    return {place: leaf.shape for place, leaf in flatten_dict(tree, sep="/").items()}


def _check_shapes(actual: Mapping, expected: Mapping) -> None:
    wrong = [f"{n} {actual[n]}, not {expected[n]}" for n in actual if actual[n] != expected[n]]
    _refuse({"other shapes": wrong})


def _refuse(problems: Mapping[str, Sequence[str]]) -> None:
    """One line with the counts and the first names of every kind of left-over."""
    lines = []
    for what, names in problems.items():
        if names:
            more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            lines.append(f"{what} {len(names)}: {', '.join(names[:SHOWN])}{more}")
    if lines:
        raise ValueError("the tensors do not fit: " + "; ".join(lines))
