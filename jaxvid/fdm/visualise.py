"""Pictures of a schedule: one row for each call of the network, one cell for each frame."""

import numpy as np

CELL = 4  # pixels, plus one of black border

BORDER = (0, 0, 0)
MISSING = (255, 255, 255)
EXISTING = (50, 50, 50)
OBSERVED = (50, 50, 255)
LATENT = (255, 69, 0)


def schedule_picture(steps, T: int, given, *, video: int = 0, small: bool = False) -> np.ndarray:
    """uint8 (h, w, 3) picture of the `Step`s of a video of T frames.

    Args:
      given: frames that exist at the start.
      video: whose observed frames to show, for adaptive schemes.
      small: one pixel a frame (existing dark red, observed red, latent blue), black rows between.
    """
    colour = _small_row if small else _row
    existing, rows = set(given), []
    for step in steps:
        existing |= set(step.latent)
        rows.append(colour(T, sorted(existing), step.rows(video + 1)[video], step.latent))
    rows = np.stack(rows)
    return _separate(rows) if small else _grid(rows)


def _row(T, existing, observed, latent):
    row = np.full((T, 3), MISSING, np.uint8)
    for frames, colour in ((existing, EXISTING), (observed, OBSERVED), (latent, LATENT)):
        row[frames] = colour
    return row


def _small_row(T, existing, observed, latent):
    row = np.zeros((T, 3), np.uint8)
    row[existing, 0] = 50
    row[observed, 0] = 255
    row[latent, 2] = 255
    return row


def _separate(rows):
    picture = np.zeros((2 * len(rows) + 1, rows.shape[1], 3), np.uint8)
    picture[1::2] = rows
    return picture


def _grid(rows):
    size = CELL + 1
    picture = np.zeros((size * rows.shape[0] + 1, size * rows.shape[1] + 1, 3), np.uint8)
    cells = rows.repeat(size, axis=0).repeat(size, axis=1)
    picture[:-1, :-1] = cells
    picture[::size], picture[:, ::size] = BORDER, BORDER
    return picture
