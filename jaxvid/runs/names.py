"""Texts as path components: readable, safe, without collisions, and back.

Printable characters stay as they are, blanks inside included. Others, `/`, `\\`, `%`, a leading dot
and blanks at either end become `%XX`, byte by byte. `original` turns that back. A name of more than
LONGEST bytes is cut and ends in `%~` and a hash, so that it meets no other; what it was stands in
the options of the request, and so in the manifest.
"""

import dataclasses
import hashlib
import json
import re
import urllib.parse
from collections.abc import Collection, Iterable
from pathlib import Path

from jaxvid.runs.requests import Request

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


def pair_name(first: str, second: str | None, firsts: Collection[str]) -> str:
    """`first_second`, or `first` where there is no second; no two of them are alike.

    firsts: all that there are. Where another one goes on into the second (`a` with `b_c`, beside
    `a_b`), `_` in the second becomes %5F; in `a_b` without a second, beside `a`, all do. So a name
    changes with `firsts` alone, whatever seconds they have.
    """
    whole = first if second is None else JOINT.join((first, second))
    kept = 0 if second is None else first.count(JOINT) + 1
    name, words = _escape(whole), whole.split(JOINT)
    if any(JOINT.join(words[:n]) in firsts for n in range(kept + 1, len(words))):
        parts = name.split(JOINT)
        name = JOINT.join([*parts[:kept], _hex(JOINT).join(parts[kept:])])
    return _fit(name, json.dumps([first, second]))


def apart(stated: Iterable[tuple[str, Request]], way_out: str) -> list[Request]:
    """The requests; one whose id or files are those of an earlier one fails alone instead.

    stated: requests, each after the place where the user states it, such as "a.txt line 3".
    way_out: the end of the message. The one that fails gets names with `/`, which `component`
      never gives.
    """
    owners, found = {}, []
    for number, (place, request) in enumerate(stated):
        names = [("id", request.id), *(("file", file) for file in request.outputs.values())]
        if twin := next((name for name in names if name in owners), None):
            shared = f"its {twin[0]} {twin[1]!r} is that of {owners[twin]}, too"
            id, files = f"twice/{number}", request.outputs.items()
            outputs = {name: f"{id}/{name}{Path(file).suffix}" for name, file in files}
            error = request.error or f"{place}: {shared}: {way_out}"
            request = dataclasses.replace(request, id=id, outputs=outputs, error=error)
        else:
            owners |= dict.fromkeys(names, place)
        found.append(request)
    return found


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
