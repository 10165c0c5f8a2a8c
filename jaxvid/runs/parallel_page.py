"""`run_parallel.html`: the results of all videos of a folder on one page, failures included."""

import os
from collections.abc import Sequence
from pathlib import Path

from jaxvid.runs import gallery, parallel_marker
from jaxvid.runs.causes import INPUT
from jaxvid.runs.manifest import DONE, FAILED, Manifest
from jaxvid.runs.parallel import LOG, Video

NAME = "run_parallel.html"  # users may have an index.html beside their videos
SHOWN = gallery.VIDEOS + gallery.IMAGES


def write(root: Path, videos: Sequence[Video]) -> str:
    """Writes the page of a folder of videos; returns a line that says where it is, or why not."""
    cards = [card for video in videos for card in cards_of(video, root)]
    try:
        return f"gallery: {gallery.write_page(root / NAME, cards)}"
    except OSError as error:
        return f"gallery: not written, {error.strerror}"


def cards_of(video: Video, root: Path) -> list[dict]:
    """What the page shows of a video: the rows of its manifest if there is one, else its files."""
    name = str(video.path.relative_to(root))
    if video.error:
        return [_card(video, root, name, FAILED, kind=INPUT, error=video.error)]
    marker = parallel_marker.read(video)
    try:
        cards = gallery.cards(Manifest(video.output), root)
    except ValueError as error:
        return [_card(video, root, name, FAILED, error=str(error))]
    for card in cards:
        card.update(id=f"{name}/{card['id']}", clip=name)
    failed = marker.get("status") == FAILED
    if failed and not any(card["status"] == FAILED for card in cards):
        cards.append(_card(video, root, name, FAILED, kind=marker["kind"], error=marker["cause"]))
    if marker.get("status") == DONE and not cards:
        cards.append(_card(video, root, name, DONE, files=marker["files"]))
    return cards


def _card(video: Video, root: Path, name: str, status: str, files: Sequence[str] = (), **facts):
    """files: in the output folder, of which videos and pictures are shown."""
    shown = [file for file in files if os.path.splitext(file)[1].lower() in SHOWN]
    shown += [LOG] * video.log.exists()
    outputs = {file: {"file": file} for file in shown}
    inputs = {"clip": {"path": str(video.path)}}
    row = {"id": name, "status": status, "inputs": inputs, "outputs": outputs, **facts}
    return gallery.card(row, video.output, root, {}) | {"clip": name}
