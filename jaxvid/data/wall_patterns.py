"""Wall patterns of the maze walks: a few large shapes in saturated colours.

A pattern is drawn once per maze on a small square and looked up by the raycaster. Shapes are large
and few on purpose: a 64x64 video keeps them, and a small diffusion model can learn them.
"""

import numpy as np

SIDE = 64  # texels along one wall block, both ways

COLOURS = np.array(
    [
        (0.90, 0.22, 0.20),  # red
        (0.97, 0.58, 0.14),  # orange
        (0.98, 0.84, 0.22),  # yellow
        (0.30, 0.72, 0.30),  # green
        (0.14, 0.66, 0.70),  # teal
        (0.20, 0.42, 0.88),  # blue
        (0.55, 0.30, 0.80),  # violet
        (0.93, 0.40, 0.68),  # pink
    ],
    np.float32,
)
CREAM = np.array((0.95, 0.91, 0.82), np.float32)
DARK = np.array((0.22, 0.20, 0.26), np.float32)


def _stripes(u, v):
    return (u * 2) % 1 < 0.5


def _bands(u, v):
    return (v * 2 + 0.25) % 1 < 0.5


def _bricks(u, v):
    row = np.floor(v * 4)
    across = (u * 2 + 0.5 * (row % 2)) % 1
    return (across > 0.09) & ((v * 4) % 1 > 0.16)


def _panel(u, v):
    return np.maximum(abs(u - 0.5), abs(v - 0.5)) < 0.31


def _checks(u, v):
    return (np.floor(u * 2) + np.floor(v * 2)) % 2 == 0


def _disc(u, v):
    return (u - 0.5) ** 2 + (v - 0.5) ** 2 < 0.33**2


PATTERNS = (_stripes, _bands, _bricks, _panel, _checks, _disc)


def wall_textures(rng: np.random.Generator, styles: int) -> np.ndarray:
    """Draws `styles` textures with distinct main colours and distinct patterns.

    Returns:
      (styles, u, v, 3) float32 in [0, 1]; u runs along the wall, v from its top to its foot.
    """
    colours = rng.choice(len(COLOURS), styles, replace=False)
    patterns = rng.choice(len(PATTERNS), styles, replace=False)
    seconds = rng.integers(0, 2, styles)
    fine = (np.arange(SIDE * 4, dtype=np.float32) + 0.5) / (SIDE * 4)
    u, v = np.meshgrid(fine, fine, indexing="ij")
    foot = (1 - 0.35 * np.clip((v - 0.8) / 0.2, 0, 1) ** 2)[..., None]  # a soft shadow on the floor
    textures = []
    for colour, pattern, second in zip(colours, patterns, seconds, strict=True):
        inside = PATTERNS[pattern](u, v)[..., None]
        image = np.where(inside, COLOURS[colour], (CREAM, DARK)[second]) * foot
        textures.append(halve(halve(image)))
    return np.stack(textures).astype(np.float32)


def halve(image: np.ndarray) -> np.ndarray:
    """Averages 2x2 squares of an image (h, w, c)."""
    return (image[0::2, 0::2] + image[1::2, 0::2] + image[0::2, 1::2] + image[1::2, 1::2]) / 4


def coarser(textures: np.ndarray, levels: int) -> np.ndarray:
    """Stacks ever coarser copies of textures (s, u, v, 3), for walls that are far away.

    Returns:
      (levels, s, u, v, 3); level i is averaged over squares of 2**i texels.
    """
    pyramid = [textures]
    for level in range(1, levels):
        small = [image for image in textures]
        for _ in range(level):
            small = [halve(image) for image in small]
        full = [image.repeat(2**level, axis=0).repeat(2**level, axis=1) for image in small]
        pyramid.append(np.stack(full))
    return np.stack(pyramid)
