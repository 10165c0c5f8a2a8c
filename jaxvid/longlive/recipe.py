"""Everything that LongLive's training programs depend on but arrays."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from jaxvid.longlive.cache import CausalWan
from jaxvid.longlive.losses import DmdConfig
from jaxvid.longlive.rollout import RolloutConfig
from jaxvid.longlive.stream import Chunk
from jaxvid.longlive.train_config import TrainConfig
from jaxvid.wan.dit import WanConfig


class Kind(NamedTuple):
    """What tells the programs of rollouts apart: a chunk without its place in a long video."""

    fresh: bool
    frames: int
    switch_block: int | None
    switch_frame: int  # of the video, if it is not further than the newest frames reach back
    prompt: int


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of a training program; hashable, so that it can be compiled for them."""

    train: TrainConfig
    rollout: RolloutConfig
    network: WanConfig  # the generator
    critic: WanConfig
    teacher: WanConfig
    dtype: str
    latent_shape: tuple[int, int, int]  # (h, w, c)
    lora_scale: float = 0.0  # of the generator's adapters; 0: it learns whole
    critic_scale: float = 0.0

    @property
    def reach(self) -> int:
        """Frames that a chunk can look back to: a loss clip, and a prompt switch's window."""
        return max(self.train.frames, self.causal.window.frames)

    @property
    def causal(self) -> CausalWan:
        longest = self.train.max_frames if self.train.stage == "streaming" else self.train.frames
        return CausalWan(self.network, self.rollout.cache_window(longest), jnp.dtype(self.dtype))

    @property
    def dmd(self) -> DmdConfig:
        return DmdConfig(
            guidance=self.train.guidance,
            shift=self.rollout.shift,
            score_shift=self.train.score_shift,
        )

    def kind(self, chunk: Chunk) -> Kind:
        """Chunks of one kind share a program."""
        frame = 0
        if chunk.switch_block is not None:
            frame = chunk.start + chunk.switch_block * self.rollout.block
        return Kind(
            chunk.start == 0,
            chunk.frames,
            chunk.switch_block,
            min(frame, self.reach + 1),
            chunk.prompt,
        )
