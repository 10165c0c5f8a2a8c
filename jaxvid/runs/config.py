"""The flags of a run, the same for every mode."""

import dataclasses
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How requests are worked off; none of it changes what an output looks like."""

    output: str = ""  # folder for outputs, manifest.jsonl and index.html
    shard: str = ""  # "i/n": this process makes every n-th request; "": see share.this_share
    resume: bool = True  # False makes finished requests again
    retry_failed: bool = True  # False leaves those alone that failed in an earlier run
    overwrite: bool = False  # True replaces files of the same name that no manifest row tells of
    fail_fast: bool = False  # stop at the first failure
    max_failures: int = 0  # stop after so many; 0: never
    gallery: bool = True  # write index.html
    tensorboard: bool = False  # write seconds of stages for TensorBoard
    # several processes: each makes its share of the requests, or all make each one together
    hosts: Literal["divide", "together"] = "divide"

    def __post_init__(self):
        if not self.output:
            raise ValueError("run.output is empty: give a folder, e.g. --config.run.output=out")
        if self.max_failures < 0:
            raise ValueError(f"run.max_failures={self.max_failures} is negative; 0 means no limit")

    @property
    def folder(self) -> Path:
        return Path(self.output).expanduser().absolute()

    @property
    def failure_limit(self) -> float:
        """The number of failures that stops the run."""
        return 1 if self.fail_fast else self.max_failures or float("inf")
