"""What is noted of a video in its output folder, so that the next run knows what is left."""

import json
from pathlib import Path

from jaxvid.core.files import atomic_path
from jaxvid.runs.manifest import DONE, FAILED
from jaxvid.runs.parallel import LOG, MARKER, Video

RUNNING = "running"  # else manifest.DONE or FAILED


def read(video: Video) -> dict:
    """What an earlier run noted; {} if nothing."""
    try:
        return json.loads((video.output / MARKER).read_text())
    except (OSError, ValueError):
        return {}


def write(video: Video, status: str, identity: str, **facts) -> None:
    """Notes how far a video is; for a finished one also the sizes of its files.

    Otherwise what was noted of an earlier success stays in `made`, until another one or until its
    files change: an attempt with mistyped arguments must not cost the results of the right ones.
    """
    content = {"status": status, "video": video.path.name, "identity": identity}
    content |= {"input": video.stamp, "attempts": video.attempts, **facts}
    if status == DONE:
        content["files"] = sizes(video.output)
    elif made := _made(video):
        content["made"] = made | {"times": _times(video, made)}
    _save(video, content)


def is_finished(video: Video, identity: str) -> bool:
    """Whether an earlier run did the same to the same file and the results are still there."""
    return _is_about(_made(video), video, identity)


def has_failed(video: Video, identity: str) -> bool:
    """Whether the same failed for the same file before."""
    marker = read(video)
    return _is_about(marker, video, identity) and marker["status"] == FAILED


def restore(video: Video) -> None:
    """Notes of a finished video again what was noted before attempts at something else."""
    if read(video)["status"] != DONE:
        _save(video, {name: fact for name, fact in _made(video).items() if name != "times"})


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of all files in an output folder but our own."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.name not in (MARKER, LOG))
    return {str(p.relative_to(folder)): p.stat().st_size for p in found}


def _made(video: Video) -> dict:
    """What was noted of the last success, if all its files are as it left them; else {}."""
    marker = read(video)
    made = marker if marker.get("status") == DONE else marker.get("made", {})
    found = sizes(video.output) if made else {}
    if any(found.get(name) != size for name, size in made.get("files", {}).items()):
        return {}
    return made if made.get("times") in (None, _times(video, made)) else {}


def _times(video: Video, made: dict) -> dict[str, int]:
    return {name: (video.output / name).stat().st_mtime_ns for name in made.get("files", {})}


def _save(video: Video, content: dict) -> None:
    with atomic_path(video.output / MARKER) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


def _is_about(marker: dict, video: Video, identity: str) -> bool:
    same = marker.get("identity") == identity
    return same and marker.get("input") == video.stamp
