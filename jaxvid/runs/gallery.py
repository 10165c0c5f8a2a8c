"""`index.html`: the results of a run to look at from disk, without a server or a network."""

import functools
import json
import os
import re
import urllib.parse
from collections.abc import Collection
from importlib import resources
from pathlib import Path

from jaxvid.core.files import atomic_path, read_json
from jaxvid.runs.manifest import FAILED, Manifest

NAME = "index.html"
SCRIPTS = ("gallery_player.js", "gallery_list.js", "gallery_grid.js", "gallery.js")  # in order
METRICS = "metrics.json"  # beside the manifest, if any: {request id: {metric: value}}
VIDEOS, IMAGES = (".mp4", ".webm", ".mov", ".mkv"), (".gif", ".png", ".jpg", ".jpeg")
PROMPTS = ("prompt", "prompt1", "prompt2", "negative_prompt")  # shown with the videos
FACTS = ("time", "seconds", "devices", "code", "config", "checkpoint", "host", "share")


def write(manifest: Manifest, asked: Collection[str] | None = None) -> Path:
    """Writes the page of an output folder: the newest row of each request, in order of id.

    Videos are named by relative paths, inputs too, so that the folder can be moved together
    with its inputs. Of other requests than those `asked` for the failures are left out, since
    their inputs may be mended or gone. Returns the path of the page.

    Raises:
      ValueError: the manifest or the file of metrics is damaged.
    """
    folder = manifest.path.parent
    return write_page(folder / NAME, cards(manifest, folder, asked))


def cards(manifest: Manifest, base: Path, asked: Collection[str] | None = None) -> list[dict]:
    """What the page in folder `base` shows of an output folder; see `write`."""
    folder = manifest.path.parent
    path = folder / METRICS
    metrics = read_json(path) if path.exists() else {}
    found = manifest.latest()
    rows = [found[id] for id in sorted(found, key=_numbers_as_such)]
    if asked is not None:
        rows = [row for row in rows if row["status"] != FAILED or row["id"] in asked]
    return [card(row, folder, base, metrics.get(row["id"], {})) for row in rows]


def _numbers_as_such(id: str) -> list[str | int]:
    """Sorts v2 before v10."""
    return [int(part) if n % 2 else part for n, part in enumerate(re.split(r"(\d+)", id))]


def write_page(page: Path, data: list[dict]) -> Path:
    """Writes the cards as a page."""
    parts = {"style": read("gallery.css"), "script": "".join(map(read, SCRIPTS))}
    text = fill(read("gallery.html"), parts | {"data": embed(data)})
    with atomic_path(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


def read(name: str) -> str:
    """A part of the page."""
    return (resources.files("jaxvid.runs") / name).read_text(encoding="utf-8")


def fill(template: str, parts: dict[str, str]) -> str:
    """Puts each part in its `{{place}}`; parts may hold such words themselves."""
    pieces = re.split(r"\{\{(\w+)\}\}", template)
    return "".join(parts[piece] if n % 2 else piece for n, piece in enumerate(pieces))


def card(row: dict, folder: Path, base: Path, metrics: dict) -> dict:
    """What the page in folder `base` shows of a row of the manifest in `folder`."""
    options = row.get("options", {})
    inputs = [(name, entry["path"], None) for name, entry in row.get("inputs", {}).items()]
    outputs = [
        (name, os.path.join(folder, entry["file"]), entry.get("frames"))
        for name, entry in row.get("outputs", {}).items()
    ]
    media = [describe(kind_of_input(item[0]), *item, base) for item in inputs]
    media += [describe("output", *item, base) for item in outputs]
    return {
        "id": row["id"],
        "clip": clip_of(row),
        "variant": variant_of(row),
        "kind": row.get("kind", ""),
        "status": row["status"],
        "seed": row.get("seed"),
        "prompts": [str(options[name]) for name in PROMPTS if options.get(name)],
        "options": options,
        "media": media,
        "metrics": metrics,
        "error": row.get("error", ""),
        "traceback": row.get("traceback", ""),
        "facts": {name: row[name] for name in FACTS if row.get(name)},
    }


def clip_of(row: dict) -> str:
    """What a result was made from, by which the page groups: results of a clip share a line."""
    options, inputs = row.get("options", {}), row.get("inputs", {})
    name = options.get("uid") or options.get("name")
    if not name and "clip" in inputs:
        name = os.path.splitext(os.path.basename(inputs["clip"]["path"]))[0]
    return str(name or row["id"])


def variant_of(row: dict) -> str:
    """What tells results of one clip apart; "" if nothing does."""
    options = row.get("options", {})
    sample = f"sample {options['sample']}" if "sample" in options else ""
    return str(options.get("variant") or sample)


def kind_of_input(name: str) -> str:
    return "control" if "control" in name else "input"


def describe(kind: str, label: str, path: str, frames: int | None, folder: Path) -> dict:
    """One file on the page; `src` is relative to the page and safe in a URL."""
    relative, source, type_ = _place(path, str(folder))
    return {
        "kind": kind,
        "label": label,
        "type": type_,
        "path": relative,
        "src": source,
        "frames": frames if type_ != "file" else None,
    }


@functools.lru_cache(maxsize=100_000)  # results share inputs
def _place(path: str, folder: str) -> tuple[str, str, str]:
    """Path and URL relative to the page, and "video", "image" or "file"."""
    suffix = os.path.splitext(path)[1].lower()
    type_ = "video" if suffix in VIDEOS else "image" if suffix in IMAGES else "file"
    inside = path.startswith(folder + os.sep)
    relative = path[len(folder) + 1 :] if inside else os.path.relpath(path, folder)
    return relative, "./" + urllib.parse.quote(os.fsencode(relative)), type_


def embed(value) -> str:
    """JSON that cannot end the script element it stands in, whatever its strings hold."""
    text = json.dumps(value, ensure_ascii=True)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
