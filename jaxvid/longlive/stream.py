"""Which piece of which video each rollout of training makes: a schedule without any arrays.

Distillation makes every video anew. Streaming long tuning goes on with the same videos chunk by
chunk, each rollout one chunk further, until they would get too long; then new ones begin.
"""

from typing import NamedTuple

import numpy as np

from jaxvid.longlive.train_config import TrainConfig

EXIT, SWITCH = 0, 1  # streams of random numbers


class Position(NamedTuple):
    """Where a run is."""

    video: int = -1  # batches of videos begun before, less one
    frame: int = 0  # latent frames made of the current ones


class Chunk(NamedTuple):
    """What one rollout makes of all videos of a batch."""

    video: int  # counts batches of videos
    start: int  # latent frames before it
    frames: int
    switch_block: int | None  # the block at which the second prompts take over
    prompt: int  # which of the two prompts is in force when it ends

    @property
    def end(self) -> Position:
        return Position(self.video, self.start + self.frames)


def next_chunk(config: TrainConfig, block: int, position: Position) -> Chunk:
    """The chunk that follows; its videos change prompts at a frame drawn for all of them."""
    if config.stage == "dmd":
        return Chunk(position.video + 1, 0, config.frames, None, 0)
    start, video = position.frame, position.video
    if video < 0 or start + config.new_frames > config.max_frames:
        start, video = 0, video + 1
    frames = config.new_frames if start else config.frames
    switch = block_start(switch_frame(config, video), block)
    at = (switch - start) // block if start <= switch < start + frames else None
    return Chunk(video, start, frames, at, int(switch < start + frames))


def block_start(frame: int, block: int) -> int:
    """The first block that starts at a frame or later."""
    return -(-frame // block) * block


def switch_frame(config: TrainConfig, video: int) -> int:
    """The frame from which the second prompts hold."""
    rng = np.random.default_rng([config.seed, SWITCH, video])
    return int(rng.choice(config.switch_frames))


def turns(config: TrainConfig, step: int) -> tuple[str, ...]:
    """Who learns in an update: the generator now and then, and then the critic."""
    return ("generator", "critic") if step % config.generator_every == 0 else ("critic",)


def plan(config: TrainConfig, block: int, step: int, position: Position) -> list:
    """(who, Chunk) of an update, in order; both make the same videos of a `dmd` update.

    A first chunk that is not trained on is made in the turn before, as `("nobody", Chunk)`.
    """
    found = []
    for who in turns(config, step):
        if config.stage == "dmd" and found:
            found.append((who, found[-1][1]))
            continue
        chunk = next_chunk(config, block, position)
        if config.stage == "streaming" and not (chunk.start or config.train_first_chunk):
            found.append(("nobody", chunk))
            chunk = next_chunk(config, block, chunk.end)
        found.append((who, chunk))
        position = chunk.end
    return found


def exit_step(config: TrainConfig, step: int, turn: int, count: int) -> int:
    """The denoising step with a gradient, one of `count`, drawn once per rollout."""
    rng = np.random.default_rng([config.seed, EXIT, step, turn])
    return int(rng.integers(count))
