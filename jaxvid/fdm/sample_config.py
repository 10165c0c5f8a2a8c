"""Settings of FDM sampling, and the file and folder names that follow from them."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np

from jaxvid.core.mesh import MeshConfig
from jaxvid.data.sources import DataConfig
from jaxvid.fdm import naming, optimal, schemes
from jaxvid.fdm.process import DiffusionConfig, make_process
from jaxvid.fdm.unet import UNetConfig

LIMITS = {"num_samples": 100_000, "batch_size": 100_000, "video_size": 4096}
LONGEST = 100_000  # frames of a video, which is held in memory as a whole


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """What to sample; upstream's flag names are in flags.py."""

    scheme: str = "autoreg"
    n_obs: int = 36  # frames observed at the start of each video
    step_size: int = 0  # frames generated per call; 0: half of max_frames
    max_frames: int = 0  # frames of a call; 0: as in training
    num_samples: int = 1  # of each video
    sample_idx: int = -1  # only this sample, -1: all
    subset_size: int = 0  # only so many videos, 0: all
    subset: Literal["random", "first"] = "random"  # which; upstream's code takes the first
    indices: tuple[int, ...] = ()  # only these videos
    batch: int = -1  # only this batch of batch_size videos, -1: all
    split: Literal["test", "train"] = "test"
    batch_size: int = 8  # videos per call, over all devices
    method: Literal["ddpm", "ddim"] = "ddpm"
    eta: float = 0.0  # of DDIM
    respacing: str = ""  # e.g. "250" or "ddim25"
    clip: bool = True
    guidance: bool = False  # observe through gradients (`--use_gradient_method`)
    optimality: str = ""  # observe the frames of an optimal schedule of this kind
    schedule: str = ""  # its file; "": optimal_schedule.json or .pt in the evaluation folder
    distance: Literal["lpips", "pixels"] = "lpips"  # of the adaptive schemes
    lpips: str = "checkpoints/lpips_alex"  # converted weights, for distance="lpips"
    eval_dir: str = ""  # replaces results/<checkpoint>; the name of the settings is appended
    name_dataset: bool = False  # put the dataset in the name (`--override_dataset`)
    pixels: Literal["round", "truncate"] = "round"  # of saved samples; upstream truncates
    upstream_faults: bool = False  # index tables with upstream's faults
    video: Literal["mp4", "gif", "none"] = "mp4"
    checkpoint_evaluations: int = 3000  # between snapshots to go on from; 0: none
    video_size: int = 256  # small frames are enlarged to at least this many pixels
    seed: int = 0
    visualise: Literal["", "small", "big", "refactored"] = ""  # only draw the schedule, so

    def __post_init__(self):
        counts = ("n_obs", "step_size", "max_frames", "subset_size", "video_size")
        for field in (*counts, "checkpoint_evaluations"):
            if getattr(self, field) < 0:
                raise ValueError(f"sampling.{field}={getattr(self, field)} is negative")
        for field in ("num_samples", "batch_size"):
            if getattr(self, field) < 1:
                raise ValueError(f"sampling.{field}={getattr(self, field)} must be at least 1")
        for field in ("sample_idx", "batch"):
            if getattr(self, field) < -1:
                value = getattr(self, field)
                raise ValueError(f"sampling.{field}={value} is negative; -1 stands for all")
        for field, most in LIMITS.items():
            if getattr(self, field) > most:
                value = getattr(self, field)
                raise ValueError(f"sampling.{field}={value} is too large; use at most {most}")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"sampling.eta={self.eta} is not from 0 (DDIM) to 1 (like DDPM)")
        if self.indices and self.subset_size:
            raise ValueError("sampling.indices and sampling.subset_size exclude each other")
        if self.batch >= 0 and (self.indices or self.subset_size):
            raise ValueError("sampling.batch excludes sampling.indices and sampling.subset_size")
        if self.guidance and self.method == "ddim":
            raise ValueError("sampling.guidance works with method='ddpm' only")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that sampling a dataset with a checkpoint needs, resolved and checked."""

    checkpoint: str
    network: UNetConfig
    diffusion: DiffusionConfig  # respaced for sampling
    arguments: dict  # of training, in upstream's terms
    step: int  # of training
    data: DataConfig
    sampling: SampleConfig
    mesh: MeshConfig
    T: int
    max_frames: int
    step_size: int
    output: str = ""  # folder of all outputs, in place of upstream's names

    def __post_init__(self):
        if self.T > LONGEST:
            raise ValueError(f"data.frames: T={self.T} is too large; use at most {LONGEST}")
        if self.max_frames > self.T:
            raise ValueError(
                f"sampling.max_frames={self.max_frames} exceeds the T={self.T} frames of a video"
            )
        make_process(self.diffusion)
        self.steps()

    def scheme(self, embed=None) -> schemes.Scheme:
        """A fresh iterator over the calls of one batch of videos."""
        sampling = self.sampling
        return schemes.make_scheme(
            sampling.scheme,
            T=self.T,
            n_obs=sampling.n_obs,
            max_frames=self.max_frames,
            step_size=self.step_size,
            embed=embed,
            optimal=self.optimal(),
            upstream=sampling.upstream_faults,
        )

    def steps(self) -> list[schemes.Step]:
        """The calls of the scheme; of adaptive ones only the latent frames are final."""
        if self.sampling.upstream_faults:
            return self._faulty_steps()
        return schemes.validate(
            self.sampling.scheme,
            *(self.T, self.sampling.n_obs, self.max_frames, self.step_size, self.optimal()),
        )

    def _faulty_steps(self) -> list[schemes.Step]:
        try:
            steps = list(self.scheme(_no_look))
        except (ArithmeticError, AssertionError, LookupError) as error:
            raise ValueError(f"upstream's {self.sampling.scheme!r} fails: {error!r}") from error
        if not steps or max(step.frames for step in steps) > self.max_frames:
            raise ValueError(
                f"upstream's {self.sampling.scheme!r} makes no frame, or takes more than "
                f"max_frames={self.max_frames} in a call; set upstream_faults=False"
            )
        return steps

    @property
    def checkpoint_calls(self) -> int:
        """A killed run goes on at the last multiple of so many calls; 0: at the first."""
        steps = make_process(self.diffusion).steps
        return -(-self.sampling.checkpoint_evaluations // steps)

    @property
    def needs_lpips(self) -> bool:
        """Whether the scheme compares frames by LPIPS."""
        return self.sampling.distance == "lpips" and schemes.is_adaptive(self.sampling.scheme)

    def given_frames(self) -> frozenset[int]:
        """The frames whose true content the scheme starts from."""
        return self.scheme(_no_look).observed_frames

    def optimal(self):
        """The optimal schedule asked for, or None."""
        if not self.sampling.optimality:
            return None
        if self.sampling.schedule:
            return optimal.load_schedule(self.sampling.schedule)
        found = [self.folder / f"optimal_schedule{suffix}" for suffix in (".json", ".pt")]
        return optimal.load_schedule(next((p for p in found if p.exists()), found[0]))

    @property
    def folder(self) -> Path:
        """The evaluation folder."""
        return self.folder_for(self.sampling.optimality)

    def folder_for(self, optimality: str) -> Path:
        """The evaluation folder of these settings with an optimal schedule of this kind, or ""."""
        if self.output:
            return Path(self.output).expanduser()
        sampling = self.sampling
        name = naming.run_name(
            sampling.scheme,
            self.max_frames,
            self.step_size,
            self.T,
            sampling.n_obs,
            optimality=optimality or None,
            partition=sampling.split,
            gradient_method=sampling.guidance,
            override_dataset=self.data.name if sampling.name_dataset else None,
        )
        return naming.evaluation_folder(
            self.checkpoint,
            name,
            sampling.eval_dir or None,
            ddim=sampling.method == "ddim",
            respacing=sampling.respacing,
            step=self.step,
        )


def _no_look(frames: list[int]) -> np.ndarray:
    """Stands for the look of the frames where the videos are not there."""
    return np.zeros((1, len(frames), 1))
