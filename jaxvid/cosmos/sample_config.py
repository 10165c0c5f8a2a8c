"""Settings of the multiview mode: what to make, and with which files."""

import dataclasses
import functools
from typing import Literal

from jaxvid.core.mesh import MeshConfig
from jaxvid.core.noise import check_seed
from jaxvid.cosmos import noise
from jaxvid.cosmos.dit import DitConfig
from jaxvid.cosmos.multirun import MultirunConfig
from jaxvid.cosmos.prompts import PromptSettings
from jaxvid.cosmos.safety import Safety
from jaxvid.cosmos.sample import SamplerConfig
from jaxvid.cosmos.spec import Overrides
from jaxvid.wan.vae import VaeConfig

FILES = ("combined", "views", "grid", "control_grid")


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """What to make, beside what the spec files say of each sample."""

    specs: tuple[str, ...] = ()  # .json or .jsonl files, see spec.py
    limit: int = 0  # only so many of the samples, 0: all
    height: int = 720
    width: int = 1280
    latent_frames: int = 8  # of a chunk: 29 frames, those the release was trained for
    whole_controls: bool = False  # as many chunks as the controls last for, whatever num_chunks is
    mixed_videos: Literal["refuse", "allow"] = "refuse"  # of a sample: other sizes, lengths
    long_prompts: Literal["refuse", "cut"] = "refuse"  # what is past the 512 tokens that are read
    guidance_passes: Literal["auto", "together", "separate"] = "auto"  # auto: as mesh.data says
    upstream_ranks: int = 0  # noise as upstream's on so many GPUs; 0: ours, for any number
    pixels: Literal["round", "truncate"] = "round"  # to 8 bits; truncate is what upstream does
    upstream_faults: bool = False  # see README, Cosmos multiview
    files: tuple[str, ...] = ()  # some of FILES; (): what a sample's save_combined_views says
    layout: Literal["folders", "flat"] = "folders"  # flat: as upstream, all samples in one folder
    probes: str = "~/.cache/jaxvid/probes"  # folder that keeps what videos hold; "": none

    def __post_init__(self):
        for field in ("limit", "upstream_ranks"):
            if getattr(self, field) < 0:
                raise ValueError(f"sampling.{field}={getattr(self, field)} is negative")
        if self.latent_frames < 1:
            raise ValueError(f"sampling.latent_frames={self.latent_frames} must be at least 1")
        if unknown := [name for name in self.files if name not in FILES]:
            raise ValueError(f"sampling.files: {unknown[0]!r} is none of {', '.join(FILES)}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The files of the networks; the defaults are the places of upstream's downloads."""

    transformer: str = (  # a file, a folder of `.distcp` files, or a converted checkpoint
        "checkpoints/Cosmos-Transfer2.5-2B/auto/multiview/"
        "4ecc66e9-df19-4aed-9802-0d11e057287a_ema_bf16.pt"
    )
    settings: str = ""  # .json of upstream's network arguments, if not those of the release
    vae: str = "checkpoints/Cosmos-Predict2.5-2B/tokenizer.pth"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    random: bool = False  # no files: parameters drawn from a seed, for tests and speed
    random_seed: int = 0

    def __post_init__(self):
        check_seed("models.random_seed", self.random_seed)


def check_release(network: DitConfig, vae: VaeConfig, text: PromptSettings) -> None:
    """Raises ValueError for networks that do not fit each other."""
    if network.channels != vae.latent_channels:
        raise ValueError(
            f"the transformer makes {network.channels} channels of latents, the VAE has "
            f"{vae.latent_channels}: give files of one release"
        )
    width = text.embedding_width
    if width and network.text_in not in (0, width):
        raise ValueError(
            f"the transformer reads embeddings {network.text_in} wide, the text encoder makes them "
            f"{width} wide: give files of one release"
        )


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that sampling needs, resolved and checked; see setup.sampling_settings."""

    sampling: SampleConfig
    overrides: Overrides
    sampler: SamplerConfig
    safety: Safety
    models: ModelConfig
    network: DitConfig
    vae: VaeConfig
    text: PromptSettings
    mesh: MeshConfig
    multirun: MultirunConfig = dataclasses.field(default_factory=MultirunConfig)

    def __post_init__(self):
        self._check_source()
        size, side = (self.sampling.height, self.sampling.width), self.side
        if min(size) < side or any(n % side for n in size):
            nearest = "x".join(str(max(round(n / side), 1) * side) for n in size)
            raise ValueError(
                f"sampling.height={size[0]} and width={size[1]} have to be multiples of {side}, "
                f"e.g. {nearest}"
            )
        check_release(self.network, self.vae, self.text)
        if self.sampling.upstream_ranks:
            noise.check_ranks(self.sampling.upstream_ranks, *self.latent_shape[:2])
        if self.mesh.data not in (1, 2, -1):
            raise ValueError(
                f"mesh.data={self.mesh.data}: only the two passes of guidance can be shared out "
                "over it, so it is 1 or 2; use mesh.seq for more devices"
            )

    def _check_source(self):
        specs, controls = self.sampling.specs, self.multirun.controls
        if specs and controls:
            raise ValueError(
                "sampling.specs and multirun.controls both say what to make: leave one empty, e.g. "
                "--config.sampling.specs=()"
            )
        if not specs and not controls:
            raise ValueError(
                "sampling.specs is empty: give a spec file, e.g. "
                "--config.sampling.specs=data/multiview/crossing.json, or multirun.controls"
            )

    @functools.cached_property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(t, h, w, c) of a view's latents of one chunk."""
        sampling = self.sampling
        size = self.vae.latent_size(sampling.height, sampling.width)
        return (sampling.latent_frames, *size, self.vae.latent_channels)

    @property
    def side(self) -> int:
        """Pixels of a token's side."""
        return self.vae.space_stride * self.network.patch

    @property
    def frames(self) -> int:
        """Pixel frames of a chunk."""
        return self.vae.pixel_frames(self.sampling.latent_frames)
