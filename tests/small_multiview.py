"""The multiview mode with networks of a few thousand parameters, and spec files of small videos."""

import json
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from jaxvid.core.config import load_config, override
from jaxvid.core.video import write_video
from jaxvid.core.views import VIEWS

ROOT = Path(__file__).parents[1]
SMALL = {  # on top of configs/cosmos_multiview.py:tiny, to compile faster
    "sampling.height": 16,
    "sampling.width": 32,
    "sampling.latent_frames": 2,
    "sampling.files": "('views',)",
    "overrides.num_steps": 2,
    "network.depth": 1,
    "network.width": 24,
    "network.heads": 2,
    "network.mlp": 24,
    "network.modulation_rank": 4,
    "network.text_in": 16,
    "network.text_width": 8,
    "network.channels": 4,
    "network.hint": False,
    "vae.width": 4,
    "vae.latent_channels": 4,
    "vae.mean": "(0.1, 0.0, -0.1, 0.2)",
    "vae.std": "(1.0, 1.5, 0.8, 1.2)",
    "vae.multipliers": "(1, 1)",
    "vae.halve_time": "(True,)",
    "encoder.width": 16,
    "encoder.hidden": 16,
    "encoder.layers": 1,
}
SPEC = {"name": "clip", "prompt": "A road.", "num_conditional_frames": 0}
BOTH = ("front_wide", "rear")


def config(**changes) -> ConfigDict:
    """The small config; `sampling__limit=3` sets sampling.limit."""
    found = load_config(f"{ROOT}/configs/cosmos_multiview.py:tiny")
    override(found, assignments(changes))
    found.text.tokenizer = str(ROOT / "data/tokenizer_qwen")
    return found


def assignments(changes: dict) -> list[str]:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return [f"{name}={value}" for name, value in (SMALL | named).items()]


def arguments(**changes) -> list[str]:
    """The same for the command line, run in the repository."""
    return [f"--config={ROOT}/configs/cosmos_multiview.py:tiny",
            *(f"--config.{text}" for text in assignments(changes))]  # fmt: skip


def write_videos(
    folder: Path, views=VIEWS, frames=7, fps=10, size=(16, 32), kind="control"
) -> dict:
    """A video of moving stripes for each view; the part of a spec that names them."""
    found = {}
    for number, view in enumerate(VIEWS):
        if view not in views:
            continue
        t, h, w = np.ogrid[:frames, : size[0], : size[1]]
        stripes = ((t * 3 + w * (number + 2) + h) % 16 * 16).astype(np.uint8)
        video = np.repeat(stripes[..., None], 3, axis=-1)
        name = f"{kind}_{view}_{frames}_{fps}_{size[1]}.mp4"
        if not (folder / name).exists():
            write_video(folder / name, video, fps)
        found[view] = {f"{kind}_path": name}
    return found


def write_all(folder: Path) -> Path:
    """Control and input videos of every view."""
    write_videos(folder)
    write_videos(folder, kind="input")
    return folder


def views(*names, inputs=(), **more) -> dict:
    """Part of a spec: control videos, and input videos of some views."""
    found = {n: {"control_path": f"control_{n}_7_10_32.mp4"} | more for n in names}
    for name in inputs:
        found[name]["input_path"] = f"input_{name}_7_10_32.mp4"
    return found


def sample(**changes) -> dict:
    """A spec of both views; changes replace its values, `views` the views."""
    return SPEC | (views(*BOTH) if "views" not in changes else changes.pop("views")) | changes


def write_spec(folder: Path, views: dict, name="clip.json", **changes) -> Path:
    """A spec file; changes replace its values, None takes them out."""
    spec = SPEC | views | changes
    path = folder / name
    path.write_text(json.dumps({key: value for key, value in spec.items() if value is not None}))
    return path
