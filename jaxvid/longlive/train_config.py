"""Settings of LongLive's training stages; what upstream's configs say is the default."""

import dataclasses
import math
from typing import Literal

from jaxvid.core.noise import check_seed
from jaxvid.longlive.negative_prompt import NEGATIVE
from jaxvid.longlive.sample_config import ModelConfig

DISTILLATIONS = ("dmd", "streaming")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train; frames are latent frames."""

    stage: Literal["flow_matching", "ode", "dmd", "streaming"] = "dmd"
    steps: int = 700  # updates of the whole run
    batch_size: int = 64  # videos per update, over all devices
    frames: int = 21  # that a loss looks at
    lr: float = 2e-6  # of the generator
    critic_lr: float = 4e-7
    beta1: float = 0.0
    beta2: float = 0.999
    weight_decay: float = 0.01
    clip_norm: float = 10.0  # of each network's gradient; 0: no limit
    ema: float = 0.99  # weight of the past in the generator's average; 0: no average
    ema_start: int = 200  # until this update the average is the generator itself
    lora_rank: int = 0  # train adapters of this rank instead of whole networks; 0: whole ones
    lora_alpha: float = 0.0  # strength of fresh adapters; 0: the rank
    lora_critic: bool = True  # with lora_rank: the critic trains adapters, too
    remat: bool = True  # recompute layers for the gradient
    generator_every: int = 5  # updates per update of the generator; the critic learns in all
    guidance: float = 3.0  # on top of the teacher's conditional prediction, 3 is what others call 4
    score_shift: float = 8.0  # of the table that teacher and critic use
    gradient_frames: int = 21  # of a rollout, the last ones, that have gradients
    leaky_gradients: bool = False  # fault of upstream: through the cache to earlier blocks
    new_frames: int = 18  # streaming: of each chunk but a video's first
    max_frames: int = 240  # streaming: a video is given up before it gets longer
    switch_frames: tuple[int, ...] = tuple(range(21, 202, 18))  # streaming: one is drawn per video
    train_first_chunk: bool = True  # streaming: False only generates it
    image_first: bool = True  # streaming: later clips begin with a frame coded as an image
    forcing: Literal["teacher", "diffusion"] = "teacher"  # flow matching: what a block may see
    augment_steps: int = 0  # teacher forcing: largest noise on clean frames, of 1000; 0: none
    ode_shift: float = 8.0  # of the table that the pairs were made with
    seed: int = 0  # upstream's 0 draws one
    log_every: int = 1
    save_every: int = 100
    keep: int = 2  # checkpoints kept for resuming; upstream keeps 5
    sample_every: int = 0  # updates between sample videos; 0: never
    sample_frames: int = 21

    def __post_init__(self):
        positive = ("steps", "batch_size", "frames", "generator_every", "log_every", "save_every")
        for field in (*positive, "keep", "sample_frames", "gradient_frames", "new_frames"):
            if getattr(self, field) < 1:
                raise ValueError(f"train.{field}={getattr(self, field)} must be at least 1")
        natural = ("weight_decay", "clip_norm", "ema_start", "lora_rank", "lora_alpha")
        for field in (*natural, "sample_every"):
            if getattr(self, field) < 0:
                raise ValueError(f"train.{field}={getattr(self, field)} is negative; use 0 or more")
        check_seed("train.seed", self.seed)
        for field in ("lr", "critic_lr"):
            if getattr(self, field) <= 0:
                raise ValueError(f"train.{field}={getattr(self, field)} must be positive")
        for field in ("ema", "beta1", "beta2"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"train.{field}={getattr(self, field)} must be in [0, 1)")
        if not 0 <= self.augment_steps <= 1000:
            raise ValueError(f"train.augment_steps={self.augment_steps} is not in 0 to 1000")
        if self.lora_rank and self.ema:
            raise ValueError(
                f"train.ema={self.ema}: adapters are trained without an average, set train.ema=0"
            )
        if self.lora_alpha and not self.lora_rank:
            raise ValueError(f"train.lora_alpha={self.lora_alpha} needs train.lora_rank")
        if self.stage == "streaming":
            self._check_stream()

    def _check_stream(self):
        if self.new_frames > self.frames:
            raise ValueError(
                f"train.new_frames={self.new_frames} is more than the train.frames={self.frames} "
                "that a loss looks at"
            )
        if self.image_first and self.new_frames == self.frames:
            raise ValueError(
                f"train.new_frames={self.new_frames} leaves none of the train.frames={self.frames} "
                "to begin with an image: use less, or train.image_first=False"
            )
        if self.max_frames < self.frames:
            raise ValueError(
                f"train.max_frames={self.max_frames} is less than the first chunk of "
                f"train.frames={self.frames}"
            )
        if not self.switch_frames or min(self.switch_frames) < 1:
            raise ValueError(
                f"train.switch_frames={self.switch_frames} needs one or more frames from 1 on"
            )
        longest = (self.max_frames - self.frames) // self.new_frames * self.new_frames + self.frames
        if max(self.switch_frames) >= longest:
            raise ValueError(
                f"train.switch_frames has {max(self.switch_frames)}, at train.max_frames="
                f"{self.max_frames} videos end after {longest}: use less, or longer videos"
            )

    @property
    def distils(self) -> bool:
        """Whether a teacher and a critic take part."""
        return self.stage in DISTILLATIONS

    def check_block(self, block: int) -> None:
        """ValueError if the frames are no whole blocks."""
        for field in ("frames", "new_frames") if self.stage == "streaming" else ("frames",):
            if getattr(self, field) % block:
                value = getattr(self, field)
                nearest = max(block, value // block * block)
                raise ValueError(
                    f"train.{field}={value} is no multiple of rollout.block={block}: use {nearest}"
                )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What to learn from: prompts for the distillations, videos or ODE pairs for the others."""

    prompts: str = ""  # .txt, one prompt a line, or .jsonl of {"prompts": [first, second]}
    switch_prompts: str = ""  # .txt of second prompts, line by line beside `prompts`
    videos: str = ""  # .jsonl of {"video": path, "caption": text}, or a folder (clip.mp4, clip.txt)
    windows: int = 1  # clips taken of each video, evenly spaced
    latents: str = "~/.cache/jaxvid/latents"  # folder that keeps the VAE's latents; "": none
    pairs: str = ""  # folder of ODE pairs, ours or upstream's LMDB
    negative_prompt: str = NEGATIVE  # of the teacher
    height: int = 480
    width: int = 832
    prompts_ahead: int = 1024  # embedded at a time, as the encoder is read anew for every time

    def __post_init__(self):
        for field in ("windows", "height", "width", "prompts_ahead"):
            if getattr(self, field) < 1:
                raise ValueError(f"data.{field}={getattr(self, field)} must be at least 1")


@dataclasses.dataclass(frozen=True)
class TrainModelConfig(ModelConfig):
    """The files of the networks; `lora` is where adapters start, `transformer` the generator."""

    transformer: str = "checkpoints/ode_init.pt"  # or a converted checkpoint
    lora: str = ""
    teacher: str = "wan_models/Wan2.1-T2V-14B/diffusion_pytorch_model.safetensors.index.json"
    critic: str = "wan_models/Wan2.1-T2V-1.3B/diffusion_pytorch_model.safetensors"
    critic_lora: str = ""


def blocks_without_gradient(config: TrainConfig, frames: int, block: int) -> int:
    """Of a rollout of so many frames, the first ones."""
    return max(math.ceil((frames - config.gradient_frames) / block), 0)
