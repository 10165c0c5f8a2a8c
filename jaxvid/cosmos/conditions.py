"""What a chunk is conditioned on: which frames are given, and which view gets which text."""

from collections.abc import Sequence

import numpy as np

from jaxvid.core.views import IDS

FRONT = IDS["front_wide"]
EMPTY = " "  # the text of all views but one
NEGATIVE = (  # a constant of upstream's model code; the key `negative_prompt` is never read
    "The video captures a series of frames showing ugly scenes, static with no motion, motion "
    "blur, over-saturation, shaky footage, low resolution, grainy texture, pixelated images, "
    "poorly lit areas, underexposed and overexposed scenes, poor color balance, washed out "
    "colors, choppy sequences, jerky movements, low frame rate, artifacting, color banding, "
    "unnatural transitions, outdated special effects, fake elements, unconvincing visuals, "
    "poorly edited content, jump cuts, visual noise, and flickering. Overall, the video is of "
    "poor quality."
)


def latent_count(frames: int, stride: int = 4) -> int:
    """Latent frames that `frames` given pixel frames condition: 1 + (frames - 1) // stride."""
    return 1 + (frames - 1) // stride


def given_mask(counts: Sequence[int], frames: int) -> np.ndarray:
    """(v, t) float32, 1 on the first `counts[v]` of t latent frames of each view."""
    return (np.arange(frames) < np.asarray(counts)[:, None]).astype(np.float32)


def front_slot(views: Sequence[int]) -> int:
    """The place of the view that gets the prompt: front_wide, or the first one without it."""
    return list(views).index(FRONT) if FRONT in views else 0


def assemble(prompt, empty, slot: int, views: int):
    """(v, n, c) texts: `prompt` (n, c) in one slot, `empty` in all others."""
    return np.stack([prompt if i == slot else empty for i in range(views)])


def per_view(prompts, negative):
    """Texts of views with a caption each (training): (v, n, c) `prompts`, and negative ones."""
    return np.asarray(prompts), np.stack([negative] * len(prompts))
