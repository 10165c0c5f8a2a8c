"""From a config file and command-line overrides to frozen dataclasses, with one-line errors."""

import argparse
import ast
import contextlib
import dataclasses
import difflib
import functools
import importlib.util
import inspect
import math
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

PREFIX = "--config."


def section(cls, **changes) -> ConfigDict:
    """A config section with every field of a settings dataclass, some of them changed.

    Nothing is checked here: a required field can stay empty until the command line fills it.
    """
    return ConfigDict({field.name: field.default for field in dataclasses.fields(cls)} | changes)


def load_config(path: str) -> ConfigDict:
    """Runs `get_config` of a config file; `file.py:name` hands it the variant `name`.

    Raises:
      ValueError: no such file, no `get_config` in it, an unknown variant, or any error in the file.
    """
    name, _, variant = path.partition(":")
    file = Path(name).expanduser()
    if not file.is_file():
        raise ValueError(
            f"--config={path}: there is no file {file}; see configs/ for those shipped"
        )
    spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    if spec is None:
        raise ValueError(f"--config={path}: the name of {file} does not end in .py")
    module = importlib.util.module_from_spec(spec)
    with _errors_of_file(path, file):
        spec.loader.exec_module(module)
    if not callable(getattr(module, "get_config", None)):
        raise ValueError(f"--config={path}: {file} has no function get_config()")
    if variant and not inspect.signature(module.get_config).parameters:
        raise ValueError(f"--config={path}: {file} has no variants")
    with _errors_of_file(path, file):
        config = module.get_config(variant) if variant else module.get_config()
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise ValueError(f"--config={path}: get_config() gives {kind}; it has to give a ConfigDict")
    return config


@contextlib.contextmanager
def _errors_of_file(path: str, file: Path):
    """Turns what goes wrong in a config file into one line with the line's number."""
    try:
        yield
    except Exception as error:
        if type(error) is ValueError:
            raise  # of a variant or a setting: says itself what to do
        trace = traceback.extract_tb(error.__traceback__)
        lines = [entry.lineno for entry in trace if entry.filename == str(file)]
        number = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        place = f"line {number}: " if number else ""
        text = getattr(error, "msg", None) or error
        raise ValueError(f"--config={path}: {place}{type(error).__name__}: {text}") from error


def override(config: ConfigDict, assignments: Sequence[str]) -> None:
    """Applies `section.field=value` strings in place; the value takes the field's present type.

    Raises:
      ValueError: unknown field (with the nearest names) or a value of another type.
    """
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"{PREFIX}{name} has no value; write {PREFIX}{name}=VALUE")
        *parents, field = name.split(".")
        section = config
        for parent in parents:
            section = _field(section, parent, name)
            if not isinstance(section, ConfigDict):
                raise ValueError(f"config.{name}: {parent} is a value, not a section")
        old = _field(section, field, name)
        with section.ignore_type():
            section[field] = _parse(text, old, name)


def parse_arguments(argv: Sequence[str]) -> tuple[ConfigDict, list[str]]:
    """Reads `--config=FILE[:variant]` and `--config.field=value`; returns the config and the rest.

    Both `--name=value` and `--name value` are read.
    """
    file, assignments, rest = "", [], []
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--config" or (word.startswith(PREFIX) and "=" not in word):
            if not words:
                raise ValueError(f"{word} has no value; write {word}=VALUE")
            word = f"{word}={words.pop(0)}"
        if word.startswith("--config="):
            file = word.removeprefix("--config=")
        elif word.startswith(PREFIX):
            assignments.append(word.removeprefix(PREFIX))
        else:
            rest.append(word)
    if not file:
        raise ValueError("no --config given; for example --config=configs/fdm_demo.py")
    config = load_config(file)
    override(config, assignments)
    return config, rest


def parse_script(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, ConfigDict]:
    """Reads a script's own flags and the config; raises ValueError for a word that is neither."""
    args, rest = parser.parse_known_args(argv)
    config, unknown = parse_arguments(rest)
    if unknown:
        raise ValueError(f"unknown argument {unknown[0]}; --help lists the flags")
    return args, config


def build(cls, section: Mapping, name: str = "config"):
    """A frozen dataclass from a config section, checked field by field.

    Raises:
      ValueError: unknown field, wrong type, or whatever the dataclass itself refuses, each in one
        line that starts with the field's full name.
    """
    hints = _hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    values = {}
    for field, value in dict(section).items():
        if field not in known:
            raise ValueError(f"{name}.{field} is not a field{nearest(field, known)}")
        values[field] = _checked(value, hints[field], f"{name}.{field}")
    required = [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    missing = [field for field in required if field not in values]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}")
    return cls(**values)


@functools.cache
def _hints(cls) -> dict:
    return typing.get_type_hints(cls)


def _field(section: ConfigDict, field: str, name: str):
    if field not in section:
        raise ValueError(f"config.{name} is not a field{nearest(field, list(section))}")
    return section[field]


def nearest(field: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: those that look like it, or all."""
    close = difflib.get_close_matches(field, known, n=3)
    return (
        f"; did you mean {' or '.join(close)}?" if close else f"; known: {', '.join(sorted(known))}"
    )


def _parse(text: str, old, name: str):
    """`text` as a value of the type of `old`; None as the old value admits any literal."""
    if isinstance(old, str):
        return text
    if isinstance(old, bool):
        words = {**dict.fromkeys("yes true t y 1".split(), True)}
        words |= dict.fromkeys("no false f n 0".split(), False)
        if text.lower() not in words:
            raise ValueError(f"config.{name}={text} is not a yes or no; write True or False")
        return words[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # all it raises
        value = text
    if isinstance(old, tuple | list) and not isinstance(value, tuple | list):
        value = (value,)
    return _checked(value, object if old is None else type(old), f"config.{name}")


def _checked(value, hint, name: str):
    """`value` as `hint` wants it (lists become tuples, ints become floats), or a ValueError."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        for option in options:
            if option is not type(None):
                try:
                    return _checked(value, option, name)
                except ValueError:
                    continue
        raise ValueError(f"{name}={value!r} is not {hint}")
    if origin is tuple or hint in (tuple, list):
        if not isinstance(value, tuple | list):
            raise ValueError(f"{name}={value!r} is not a list; write ({value!r},)")
        kinds = typing.get_args(hint) or (object, ...)
        if kinds[-1] is ...:
            kinds = kinds[:1] * len(value)
        if len(value) != len(kinds):
            raise ValueError(f"{name}={value!r} has {len(value)} entries, it takes {len(kinds)}")
        pairs = enumerate(zip(value, kinds, strict=True))
        return tuple(_checked(item, kind, f"{name}[{i}]") for i, (item, kind) in pairs)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ValueError(
                f"{name}={value!r} is not one of {', '.join(map(str, typing.get_args(hint)))}"
            )
        return value
    if origin is not None or hint in (object, typing.Any):
        return value
    if dataclasses.is_dataclass(hint):
        return build(hint, value, name)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}={value!r} is not a finite number")
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ValueError(f"{name}={value!r} is {type(value).__name__}, not {hint.__name__}")
    return value


def refuse_files(models, *fields: str) -> None:
    """Raises ValueError if a section that draws networks names files that are there, but not read.

    Args:
      models: a dataclass with a `random` field; each of `fields` is a path with a default.
    """
    default = type(models)()
    for field in fields:
        path = getattr(models, field)
        if not models.random or path in ("", getattr(default, field)):
            continue
        if Path(path).expanduser().exists():
            raise ValueError(
                f"models.random=True reads no files, models.{field}={path} is one: leave it out, "
                "or set models.random=False in a variant whose networks come from files"
            )
