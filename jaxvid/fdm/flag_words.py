"""Reading upstream's flags from a command line, and writing config overrides in their place."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from jaxvid.core.config import PREFIX

YES_NO = {
    **dict.fromkeys(("yes", "true", "t", "y", "1"), "True"),
    **dict.fromkeys(("no", "false", "f", "n", "0"), "False"),
}


@dataclasses.dataclass(frozen=True)
class Flag:
    """One of upstream's flags: the config field that takes its value, or what is said instead."""

    field: str = ""
    values: Mapping[str, str] | None = None  # field's value for each of the flag's
    note: str = ""
    several: bool = False  # takes any number of integers
    bare: bool = False  # true without a value

    @property
    def yes_no(self) -> bool:
        return self.values is not None and "True" in self.values


def switch(field: str = "", yes: str = "True", no: str = "False", **options) -> Flag:
    """A flag that is true or false."""
    return Flag(field, {"True": yes, "False": no}, **options)


@dataclasses.dataclass
class Words:
    """The words of a command line, sorted."""

    config: str = ""  # value of --config
    fields: dict[str, str] = dataclasses.field(default_factory=dict)  # from --config.FIELD
    flags: dict[str, str] = dataclasses.field(default_factory=dict)  # upstream's, without dashes
    rest: list[str] = dataclasses.field(default_factory=list)


def read_words(argv: Sequence[str], table: Mapping[str, Flag]) -> Words:
    """Sorts a command line; the first word that belongs to no flag is the checkpoint.

    Booleans become "True" or "False", lists of integers a tuple like "(1, 2)".

    Raises:
      ValueError: a flag without a value, or a value that it does not take.
    """
    words, queue = Words(), collections.deque(argv)
    while queue:
        word = queue.popleft()
        name, equals, value = word.partition("=")
        flag = name.removeprefix("--")
        if not word.startswith("--"):
            if "checkpoint_path" in table and "checkpoint_path" not in words.flags:
                words.flags["checkpoint_path"] = word
            else:
                words.rest.append(word)
        elif name == "--config":
            words.config = value if equals else _next(name, queue)
        elif name.startswith(PREFIX):
            words.fields[name.removeprefix(PREFIX)] = value if equals else _next(name, queue)
        elif flag not in table or flag == "checkpoint_path":
            words.rest.append(word)
        else:
            words.flags[flag] = _value(flag, table[flag], value if equals else None, queue)
    return words


def _next(name: str, queue) -> str:
    if not queue or queue[0].startswith("--"):
        raise ValueError(f"{name} has no value; write {name}=VALUE")
    return queue.popleft()


def _value(name: str, flag: Flag, value: str | None, queue) -> str:
    """The value of a flag; None: it is among the next words."""
    if flag.yes_no:
        if value is None:
            alone = flag.bare and not (queue and queue[0].lower() in YES_NO)
            value = "True" if alone else _next(f"--{name}", queue)
        if value.lower() not in YES_NO:
            raise ValueError(f"--{name}={value} is not a yes or no; write True or False")
        return YES_NO[value.lower()]
    if flag.several:
        found = [] if value is None else value.replace(",", " ").split()
        while value is None and queue and queue[0].lstrip("-").isdigit():
            found.append(queue.popleft())
        numbers = tuple(integer(name, text) for text in found)
        if not numbers:
            raise ValueError(f"--{name} has no value; write --{name} 0 1 2")
        return str(numbers)
    value = _next(f"--{name}", queue) if value is None else value
    if flag.values is not None and value not in flag.values:
        raise ValueError(f"--{name}={value} is not one of {', '.join(flag.values)}")
    return value


def integer(name: str, text: str) -> int:
    """`text` as an integer, or a ValueError that names the flag."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--{name}={text} is not a whole number") from None


class Overrides:
    """Values for config fields, each with the flag it comes from."""

    def __init__(self, words: Words):
        self.words = words
        self.found: dict[str, str] = {}
        self.origins = {field: f"{PREFIX}{field}" for field in words.fields}

    def set(self, field: str, value: str, origin: str) -> None:
        """Raises ValueError if the field has another value from elsewhere."""
        old = self.words.fields.get(field, self.found.get(field))
        if old is not None and old != value:
            raise ValueError(
                f"{self.origins[field]} and {origin} disagree on {field}, "
                f"{old} or {value}; keep one"
            )
        self.found[field] = value
        self.origins[field] = origin

    def set_unless_given(self, field: str, value: str, origin: str) -> bool:
        """Sets a field that nothing has set; says whether it did."""
        if field in self.origins:
            return False
        self.set(field, value, origin)
        return True

    def translate(self, table: Mapping[str, Flag]) -> None:
        """Sets the field of every flag that has one, prints the notes of the others."""
        for name, value in self.words.flags.items():
            flag = table[name]
            if flag.note:
                say(f"--{name}", flag.note)
            elif flag.field:
                ours = value if flag.values is None else flag.values[value]
                self.set(flag.field, ours, f"--{name}")

    def argv(self, config: str) -> list[str]:
        """The command line for `core.config.parse_arguments`."""
        fields = self.found | self.words.fields
        assignments = [f"{PREFIX}{field}={value}" for field, value in fields.items()]
        return [f"--config={config}", *assignments, *self.words.rest]


def say(origin: str, note: str) -> None:
    print(f"{origin}: {note}", flush=True)
