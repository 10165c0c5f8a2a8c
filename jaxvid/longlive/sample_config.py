"""Settings of LongLive as a mode: what to make, with which files, and how frames are counted."""

import dataclasses
from typing import Literal

from jaxvid.core.mesh import MeshConfig
from jaxvid.core.noise import check_seed
from jaxvid.longlive.rollout import RolloutConfig
from jaxvid.wan.dit import WanConfig
from jaxvid.wan.umt5 import Umt5Config
from jaxvid.wan.vae import VaeConfig

LONGEST = 1_000_000  # latent frames: 69 hours


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """What to make: a list of prompts in a file, or one video stated here."""

    prompts: str = ""  # file: .txt with one prompt a line, or .jsonl (README, section "LongLive")
    prompt: tuple[str, ...] = ()  # instead of the file, of one video; several take over in turn
    video: str = ""  # the clip that this one video continues; prompt is (the clip's, the next)
    switch_frames: tuple[int, ...] = ()  # latent frames at which later prompts take over
    limit: int = 0  # only so many of the list, 0: all
    num_samples: int = 1  # of each
    latent_frames: int = 120  # of a video, those of its clip included (`num_output_frames`)
    pixel_frames: int = 0  # the same as 4n + 1 frames of video; 0: latent_frames says
    conditioning_frames: int = 40  # pixel frames of the clip, at most 3 of which are not used
    height: int = 480
    width: int = 832
    fps: float = 16.0
    batch_size: int = 1  # videos per call, over all devices
    seed: int = 0
    long_prompts: Literal["refuse", "cut"] = "refuse"  # what is past the tokens that Wan knows
    names: Literal["ids", "index", "prompt"] = "ids"  # of files; the others are upstream's
    decoder: Literal["shared", "separate"] = "shared"  # "separate": the last device only decodes
    checkpoint_blocks: int = 100  # in longer videos a killed run goes on at the last so many; 0: no
    probes: str = "~/.cache/jaxvid/probes"  # folder that keeps what clips hold; "": none

    def __post_init__(self):
        for field in ("limit", "pixel_frames", "checkpoint_blocks"):
            if getattr(self, field) < 0:
                raise ValueError(f"sampling.{field}={getattr(self, field)} is negative")
        for field in ("num_samples", "latent_frames", "conditioning_frames", "batch_size"):
            if getattr(self, field) < 1:
                raise ValueError(f"sampling.{field}={getattr(self, field)} must be at least 1")
        if self.latent_frames > LONGEST:
            raise ValueError(f"sampling.latent_frames={self.latent_frames} exceeds {LONGEST}")
        if not 0.001 <= self.fps <= 1000:
            raise ValueError(f"sampling.fps={self.fps} is outside [0.001, 1000]")
        if not (self.prompts or self.prompt or self.video):
            raise ValueError("give sampling.prompts, a .txt or .jsonl file, or sampling.prompt")
        if self.video and self.switch_frames:
            raise ValueError(
                "sampling.video excludes sampling.switch_frames: the second prompt begins where "
                "the clip ends"
            )
        if any(b <= a for a, b in zip((0, *self.switch_frames), self.switch_frames, strict=False)):
            raise ValueError(
                f"sampling.switch_frames={self.switch_frames} have to rise, from 1 at least"
            )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The files of the networks; the defaults are the places of upstream's downloads."""

    transformer: str = "longlive_models/models/longlive_base.pt"  # or a converted checkpoint
    lora: str = "longlive_models/models/lora.pt"  # added to the transformer; "": none
    lora_rank: int = 0  # that the LoRA must have; 0: any
    lora_alpha: float = 0.0  # strength of the LoRA; 0: its rank
    use_ema: bool = False  # take `generator_ema` of a training checkpoint
    vae: str = "wan_models/Wan2.1-T2V-1.3B/Wan2.1_VAE.pth"
    text_encoder: str = "wan_models/Wan2.1-T2V-1.3B/models_t5_umt5-xxl-enc-bf16.pth"
    tokenizer: str = "wan_models/Wan2.1-T2V-1.3B/google/umt5-xxl"
    embeddings: str = "~/.cache/jaxvid/embeddings"  # folder that keeps those of prompts; "": none
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    random: bool = False  # no files: parameters drawn from a seed, for tests and speed
    random_seed: int = 0

    def __post_init__(self):
        if self.lora_rank < 0 or self.lora_alpha < 0:
            raise ValueError("models.lora_rank and models.lora_alpha cannot be negative")
        if self.random and (self.lora or self.use_ema):
            raise ValueError("models.random=True reads no files: set lora='' and use_ema=False")
        check_seed("models.random_seed", self.random_seed)


@dataclasses.dataclass(frozen=True)
class Length:
    """How a video is made up; `pixel` frames are 4 (latent - 1) + 1."""

    given: int  # latent frames of the clip that it continues
    latent: int  # of the whole video
    block: int
    stride: int  # pixel frames per latent frame but the first

    @property
    def blocks(self) -> int:
        """That are generated; the last one may be longer than the video."""
        return -(-(self.latent - self.given) // self.block)

    @property
    def made(self) -> int:
        """Latent frames, those included that are cut at the end."""
        return self.given + self.blocks * self.block

    @property
    def starts(self) -> range:
        """The first latent frame of each block."""
        return range(self.given, self.made, self.block)

    def pixel(self, latent: int) -> int:
        """Pixel frames of so many latent frames from the start of the video."""
        return (latent - 1) * self.stride + 1 if latent else 0

    @property
    def pixels(self) -> int:
        return self.pixel(self.latent)


def check_release(name: str, network: WanConfig, vae: VaeConfig, text: Umt5Config) -> None:
    """ValueError if a network, so named, does not fit the VAE or the text encoder."""
    if network.channels != vae.latent_channels:
        raise ValueError(
            f"the {name} makes {network.channels} channels of latents, the VAE has "
            f"{vae.latent_channels}: give files of one release"
        )
    if network.text_width != text.width:
        raise ValueError(
            f"the {name} reads embeddings {network.text_width} wide, the text encoder makes them "
            f"{text.width} wide: give files of one release"
        )


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that sampling needs, resolved and checked; see setup.sampling_settings."""

    sampling: SampleConfig
    rollout: RolloutConfig
    models: ModelConfig
    network: WanConfig
    vae: VaeConfig
    text: Umt5Config
    mesh: MeshConfig
    model_type: str = "regular"  # in upstream's file names: lora, ema or regular

    def __post_init__(self):
        height, width = self.vae.latent_size(self.sampling.height, self.sampling.width)
        units = [self.vae.space_stride * size for size in self.network.patch[1:]]
        if self.sampling.height % units[0] or self.sampling.width % units[1]:
            raise ValueError(
                f"{self.sampling.height}x{self.sampling.width} pixels do not fit the transformer: "
                f"use a multiple of {units[0]} as height and one of {units[1]} as width"
            )
        self.network.grid(self.rollout.block, height, width)
        check_release("transformer", self.network, self.vae, self.text)
        self.rollout.cache_window(self.length(0).made)

    @property
    def listed(self) -> bool:
        """Whether a file lists the videos, or the settings state the only one."""
        return not (self.sampling.prompt or self.sampling.video)

    def length(self, given: int, latent: int = 0) -> Length:
        """Frames of a video whose clip has `given` latent frames, and all of it `latent`.

        latent: 0: as the settings say.
        Raises:
          ValueError: pixel frames that the VAE cannot make, or nothing left to make.
        """
        sampling = self.sampling
        frames = latent or sampling.latent_frames
        if sampling.pixel_frames and not latent:
            frames = self.vae.latent_frames(sampling.pixel_frames)
        if frames <= given:
            raise ValueError(
                f"the clip has {given} latent frames, the whole video only {frames}: "
                f"use sampling.latent_frames={given + self.rollout.block} or more"
            )
        return Length(given, frames, self.rollout.block, self.vae.time_stride)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of a latent frame."""
        size = self.vae.latent_size(self.sampling.height, self.sampling.width)
        return (*size, self.vae.latent_channels)
