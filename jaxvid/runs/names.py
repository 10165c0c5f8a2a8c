"""Texts as path components: readable, safe, without collisions, and back.

Printable characters stay as they are, blanks inside included. Others, `/`, `\\`, `%`, a leading dot
and blanks at either end become `%XX`, byte by byte. `original` turns that back. A name of more than
LONGEST bytes is cut and ends in `%~` and a hash, so that it meets no other; what it was stands in
the options of the request, and so in the manifest.
"""

import hashlib
import json
import re
import urllib.parse
from collections.abc import Sequence

LONGEST = 200  # bytes; file systems take 255, and outputs add to a name
DIGITS = 24  # of the hash
CUT = "%~"  # no other name holds this
NOTHING = "%"  # the empty text
JOINT = "_"


def component(text: str) -> str:
    """A text as one part of a path; other texts give other parts."""
    return _fit(_escape(text), text)


def original(name: str) -> str:
    """The text that a name was made of; of a pair, both with `_` between them.

    Raises:
      ValueError: the name was cut, or is none of ours.
    """
    if CUT in name:
        raise ValueError(f"{name!r} was cut; the manifest holds what it stands for")
    text = "" if name == NOTHING else urllib.parse.unquote(name, errors="surrogatepass")
    if component(text) != name.replace(_hex(JOINT), JOINT):
        raise ValueError(f"{name!r} is not a name made by jaxvid")
    return text


def pair_names(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """`first_second` for each pair; where two would be equal, `_` in the second becomes %5F."""
    plain = [_escape(JOINT.join(pair)) for pair in pairs]
    owners = {}
    for name, pair in zip(plain, pairs, strict=True):
        owners.setdefault(name, set()).add(pair)
    names = []
    for name, (first, second) in zip(plain, pairs, strict=True):
        if len(owners[name]) > 1:
            kept, parts = first.count(JOINT) + 1, name.split(JOINT)
            name = JOINT.join([*parts[:kept], _hex(JOINT).join(parts[kept:])])
        names.append(_fit(name, json.dumps([first, second])))
    return names


def _escape(text: str) -> str:
    ends = {0, len(text) - 1}
    parts = [
        _hex(c) if not _is_plain(c) or (c == " " and i in ends) or (c == "." and i == 0) else c
        for i, c in enumerate(text)
    ]
    return "".join(parts) or NOTHING


def _is_plain(character: str) -> bool:
    return character.isprintable() and not re.match(r"[/\\%]", character)


def _hex(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogatepass"))


def _fit(name: str, whole: str) -> str:
    """The name, cut if it is too long; `whole` is hashed."""
    if len(name.encode()) <= LONGEST:
        return name
    room = LONGEST - DIGITS - len(CUT)
    start = name.encode()[:room].decode(errors="ignore")
    start = re.sub(r"(%[0-9A-F]?)$", "", start)
    digest = hashlib.sha256(whole.encode(errors="surrogatepass")).hexdigest()
    return start + CUT + digest[:DIGITS]
