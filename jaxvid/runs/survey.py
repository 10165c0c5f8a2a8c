"""What is left to do: compares the requests with the manifest and the files."""

import collections
import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

from jaxvid.runs.causes import KILLED
from jaxvid.runs.config import RunConfig
from jaxvid.runs.fingerprint import InputHashes, Provenance, fingerprint, stat_input
from jaxvid.runs.manifest import FAILED, Manifest
from jaxvid.runs.requests import Request

DEADLY = 3  # kills in a row after which a request may be their cause


@dataclasses.dataclass
class Survey:
    """The requests of one share, sorted by what to do with them."""

    todo: list[Request] = dataclasses.field(default_factory=list)
    done: list[Request] = dataclasses.field(default_factory=list)
    kept: list[Request] = dataclasses.field(default_factory=list)  # files from elsewhere
    failed_before: list[Request] = dataclasses.field(default_factory=list)  # not retried
    broken: list[tuple[Request, str]] = dataclasses.field(default_factory=list)  # with the cause
    deadly: list[Request] = dataclasses.field(default_factory=list)  # the last of todo
    changed: int = 0  # of todo: made before, with other settings or inputs
    killed: int = 0  # of todo: an earlier process was killed over them
    hashes: InputHashes = dataclasses.field(default_factory=InputHashes)

    def lines(self) -> list[str]:
        """One line for each thing a user would want to know."""
        lines = [f"{len(self.todo)} to make, {len(self.done)} already done"]
        if self.changed:
            lines.append(f"{self.changed} exist, but made with other settings: made again")
        if self.killed:
            lines.append(f"{self.killed} were being made when an earlier process was killed")
        if self.deadly:
            lines.append(
                f"{len(self.deadly)} of them, such as {self.deadly[0].id}, {DEADLY} times in a "
                "row: they come last, each alone"
            )
        if self.kept:
            lines.append(
                f"{len(self.kept)} have files that are in no manifest, such as "
                f"{self.kept[0].id}: kept; overwrite=True replaces them"
            )
        if self.failed_before:
            lines.append(
                f"{len(self.failed_before)} failed before: left; retry_failed=True tries again"
            )
        lines += [f"{request.id}: cannot run: {cause}" for request, cause in self.broken]
        return lines


def survey(requests: Sequence[Request], config: RunConfig, provenance: Provenance) -> Survey:
    """Sorts the requests of one share. Input files are looked at, not decoded."""
    found, usable = Survey(), functools.cache(stat_input)
    output = config.folder
    rows, kills = {}, collections.Counter()
    for row in Manifest(output).rows():
        rows[row["id"]] = row
        kills[row["id"]] = kills[row["id"]] + 1 if row.get("kind") == KILLED else 0
    for row in rows.values():
        found.hashes.learn(row.get("inputs", {}))
    for request in requests:
        row = rows.get(request.id)
        try:
            if request.error:
                raise ValueError(request.error)
            for name, path in request.inputs.items():
                usable(name, path)
        except ValueError as error:
            if config.resume and not config.retry_failed and row and row["status"] == FAILED:
                found.failed_before.append(request)
            else:
                found.broken.append((request, str(error)))
            continue
        where = place(request, row, found, config, provenance)
        deadly = where is found.todo and kills[request.id] >= DEADLY
        (found.deadly if deadly else where).append(request)
    found.todo += found.deadly
    return found


def place(request, row, found: Survey, config: RunConfig, provenance: Provenance) -> list:
    """The list of `found` that the request belongs to, given its newest row."""
    output = config.folder
    if row is None:
        foreign = any(os.path.exists(os.path.join(output, f)) for f in request.outputs.values())
        return found.kept if foreign and not config.overwrite else found.todo
    if not config.resume:
        return found.todo
    same = same_fingerprint(request, row, found.hashes, provenance)
    if row["status"] == FAILED and row.get("kind") == KILLED:
        found.killed += 1  # by whom is not known, so it is no reason to leave it
        return found.todo
    if row["status"] == FAILED:
        return found.failed_before if same and not config.retry_failed else found.todo
    if not same:
        found.changed += 1
        return found.todo
    return found.done if files_present(row, output) else found.todo


def same_fingerprint(request, row, hashes, provenance) -> bool:
    inputs = hashes.of_request(request)
    return row.get("fingerprint") == fingerprint(request, inputs, provenance)


def files_present(row: dict, output: Path) -> bool:
    """Whether each recorded output is there with its recorded size."""
    try:
        return all(
            os.stat(os.path.join(output, entry["file"])).st_size == entry["bytes"]
            for entry in row["outputs"].values()
        )
    except (OSError, KeyError):  # not there, or a row that somebody has edited
        return False
