"""The base parameters of a multi-run: keys of a spec file, or those of upstream's older tool."""

import json
from pathlib import Path

from jaxvid.core.config import build, nearest
from jaxvid.core.views import VIEWS
from jaxvid.cosmos.spec import FIELDS, Spec, as_field

STRIDE = 4  # pixel frames per latent frame but the first
REPLACED = ("name", "prompt", "prompt_path", "output_dir")  # each run has its own
PER_VIEW = "num_conditional_frames_per_view"
CHUNK, LOADED = "num_video_frames_per_view", "num_video_frames_loaded_per_view"
OLD = ("n_views", "resolution", "no_cond_rear_tele", "minimum_start_index", PER_VIEW, CHUNK, LOADED)


def read_base(file: str) -> tuple[dict, list[str]]:
    """Base parameters as keys of a spec file, and what is to be said about the translation.

    A file with one of the OLD keys is one of the older tool, which counted given frames and
    overlap in latent frames. "" gives the defaults.

    Raises:
      ValueError: the file cannot be read, is no JSON object, has a key that nobody knows, or a
        value that is none for it.
    """
    if not file:
        return {}, []
    path = Path(file).expanduser()
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or f"no JSON: {error}"
        raise ValueError(f"multirun.params={file}: {reason}") from error
    if not isinstance(value, dict):
        raise ValueError(f"multirun.params={file} has to hold one JSON object")
    known = (*FIELDS, *REPLACED, *OLD)
    if unknown := [key for key in value if key not in known]:
        raise ValueError(f"multirun.params={file}: {unknown[0]!r}{nearest(unknown[0], known)}")
    value = {key: v for key, v in value.items() if key not in REPLACED}
    try:
        old = any(key in value for key in OLD)
        value, notes = translate(value) if old else (value, [])
        build(Spec, {"name": "base"} | {key: as_field(key, v) for key, v in value.items()}, "spec")
        return value, notes
    except (TypeError, ValueError) as error:
        raise ValueError(f"multirun.params={file}: {error}") from error


def translate(old: dict) -> tuple[dict, list[str]]:
    """Old keys as new ones; what has no counterpart is left out and told."""
    value = {key: v for key, v in old.items() if key not in OLD}
    notes = []
    for key in ("num_conditional_frames", "chunk_overlap"):
        if key in value:
            value[key] = pixel_frames(key, value[key])
    counts = old.get(PER_VIEW) or {}
    if not isinstance(counts, dict):
        raise ValueError(f"{PER_VIEW} has to be an object from views to numbers")
    for view, count in counts.items():
        if view not in VIEWS:
            raise ValueError(f"{PER_VIEW}: {view!r}{nearest(view, VIEWS)}")
        given = as_field(view, value.get(view, {}))
        value[view] = given | {PER_VIEW: pixel_frames(f"{PER_VIEW}.{view}", count)}
    if value.get("enable_autoregressive") and CHUNK in old and LOADED in old:
        value["num_chunks"] = _chunks(old[LOADED], old[CHUNK])
    if old.get("no_cond_rear_tele"):
        notes.append("no_cond_rear_tele has no counterpart: front_tele is given frames like others")
    told = [key for key in ("n_views", "resolution", "minimum_start_index") if key in old]
    if told:
        notes.append(f"{', '.join(told)} of the base parameters: left out, videos and config say")
    return value, notes


def pixel_frames(key: str, latent: int) -> int:
    """Pixel frames of so many latent ones from the start of a video."""
    if not isinstance(latent, int) or isinstance(latent, bool) or latent < 0:
        raise ValueError(f"{key}={latent!r} has to be a number of latent frames, 0 or more")
    return (latent - 1) * STRIDE + 1 if latent else 0


def _chunks(loaded: int, chunk: int) -> int:
    """How many chunks of so many frames make the video."""
    if not chunk > 1 or (loaded - 1) % (chunk - 1) or loaded < chunk:
        raise ValueError(f"{LOADED}={loaded} is no 1 + n ({CHUNK} - 1), with {CHUNK}={chunk}")
    return (loaded - 1) // (chunk - 1)
