"""What a mode and a run say to each other: requests, frame chunks, the generator."""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from jaxvid.core.files import TEMPORARY_PREFIX

OWN_FILES = ("manifest.jsonl", "index.html", "events.jsonl", "metrics.json", "tensorboard")
SUFFIXES = (".mp4", ".gif", ".npy", ".png", ".json")  # see writers.py
VIDEO_SUFFIXES = (".mp4", ".gif")
LONGEST_NAME = 255  # bytes of one path component on the usual file systems
SAFE = re.compile(r"\w[\w -]*(\.\w[\w -]*)*(/\w[\w -]*(\.\w[\w -]*)*)*", re.ASCII)  # most paths


@dataclasses.dataclass(frozen=True)
class Request:
    """One output to make; everything that decides what it looks like is in here.

    Attributes:
      id: a relative path, unique in the run; by convention the folder of the outputs.
      seed: with the id, keys all random numbers.
      inputs: name -> path of a file that is read; its contents enter the fingerprint.
      outputs: name -> file relative to the output folder; the suffix chooses the writer.
      options: JSON values the mode needs (prompt, frames, "fps" for videos, ...). The gallery
        shows them.
      error: why the request cannot be run, found while listing; such a request is recorded
        as failed and the others run.
    """

    id: str
    seed: int
    outputs: dict[str, str]
    inputs: dict[str, str] = dataclasses.field(default_factory=dict)
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    error: str = ""


class Chunk(NamedTuple):
    """More of one output: `frames` are appended to output `name` of request `index`.

    frames: uint8 (t, h, w, 3) for .mp4, .gif and .png (t = 1); any array, growing on the first
    axis, for .npy; any JSON value, once, for .json.
    """

    index: int
    name: str
    frames: Any


class Stage(NamedTuple):
    """What the generator is doing, for the progress line: `fraction` in [0, 1] of the call."""

    text: str
    fraction: float


class Snapshot(NamedTuple):
    """All that the rest of a call follows from, given the chunks that came before it.

    A run that is killed later goes on from here. What comes after must not depend on anything
    else, so that a resumed call and an undisturbed one end with the same bytes.

    tree: pytree of arrays, of core.checkpoint's kinds; saved before the next item is asked for,
    so that it may be given up (donated) then. info: a JSON value.
    """

    tree: Any
    info: Any


class Generator(Protocol):
    """A loaded mode: parameters on the devices, functions compiled when first used.

    Optional members, used when they are there:

    - `devices`: str, recorded with each result;
    - `prefetch(requests)` reads the inputs of the next call; runs on another thread meanwhile;
    - `resumable(requests) -> bool`: whether `generate` yields Snapshots, as it should in calls that
      take long. Snapshots cut .mp4 files into parts, so their places may depend only on what the
      requests' fingerprints hold;
    - `resume(requests, info, restore)` yields what `generate` would yield after a Snapshot. `info`
      is the Snapshot's, `restore(like)` its tree; `like` is such a tree of jax.ShapeDtypeStructs
      with the shardings wanted now.
    """

    batch_size: int

    def group(self, request: Request) -> Any:
        """Requests with an equal (hashable) group may share a call."""

    def generate(self, requests: list[Request]) -> Iterator[Chunk | Stage | Snapshot]:
        """Makes 1 to `batch_size` requests of one group; pads a call that is not full."""


def check_requests(requests: Iterable[Request]):
    """Raises a ValueError for ids or outputs that are unsafe or collide."""
    ids, files = set(), {}
    for request in requests:
        check_relative(request.id, "request id")
        if request.id in ids:
            raise ValueError(f"request id {request.id!r} occurs twice; ids must be unique")
        ids.add(request.id)
        if not request.outputs:
            raise ValueError(f"request {request.id!r} asks for no outputs")
        for name, file in request.outputs.items():
            _check_output(request, name, file)
            if file in files:
                raise ValueError(f"{files[file]!r} and {request.id!r} both write {file!r}")
            files[file] = request.id
    for file, owner in files.items():
        for parent in _parents(file):
            if parent in files:
                raise ValueError(
                    f"{owner!r} needs a folder {parent!r}, which {files[parent]!r} writes as a file"
                )


def check_places(requests: Iterable[Request], output: Path):
    """Raises a ValueError if something is in the way of an output, or leads out of the folder."""
    files = {file for request in requests for file in request.outputs.values()}
    for folder in {folder for file in files for folder in ("", *_parents(file))}:
        place = os.path.join(output, folder)
        if os.path.lexists(place) and not os.path.isdir(place):
            raise ValueError(f"{place} is a file, where outputs need a folder; move it")
        if folder and os.path.islink(place):
            raise ValueError(
                f"{place} is a link, through which outputs would leave {output}; move it, or make "
                "run.output itself the link"
            )
    for file in files:
        place = os.path.join(output, file)
        if os.path.isdir(place):
            raise ValueError(f"{place} is a folder, where an output goes; move it")


def _parents(file: str) -> list[str]:
    """The folders that a relative path lies in."""
    parts = file.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def check_relative(path: str, what: str):
    """Raises a ValueError unless `path` stays inside the folder it is relative to."""
    if len(path) <= LONGEST_NAME and SAFE.fullmatch(path):
        return
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{what} {path!r} is not a plain relative path such as 'clip/0'")
    if re.search(r"[\x00-\x1f\x7f\\]", path):
        raise ValueError(f"{what} {path!r} holds a control character or backslash")
    longest = max(parts, key=lambda part: len(os.fsencode(part)))
    if len(os.fsencode(longest)) > LONGEST_NAME:
        raise ValueError(f"{what} part {longest[:40]!r}... is longer than {LONGEST_NAME} bytes")
    if any(part.startswith(TEMPORARY_PREFIX) for part in parts):
        raise ValueError(f"{what} {path!r}: {TEMPORARY_PREFIX!r} marks temporary files")


def _check_output(request: Request, name: str, file: str):
    check_relative(file, f"output {name!r} of {request.id!r}")
    if file.split("/")[0] in OWN_FILES:
        raise ValueError(f"output {file!r} of {request.id!r} is a name that the run itself uses")
    suffix = os.path.splitext(file)[1]
    if suffix not in SUFFIXES:
        raise ValueError(f"output {file!r} of {request.id!r}: suffix is not one of {SUFFIXES}")
    if suffix in VIDEO_SUFFIXES and not request.options.get("fps", 0) > 0:
        raise ValueError(f"output {file!r} of {request.id!r} needs options['fps'] > 0")
