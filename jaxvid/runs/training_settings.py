"""Settings that training runs of all systems share."""

import dataclasses
from pathlib import Path

from jaxvid.core.files import check_writable


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Where a run keeps what it makes, and where it starts."""

    output: str = ""
    start_from: str = ""  # checkpoint of ours or upstream's, for the initial parameters
    stop_after: float = 0.0  # minutes after which to save and end; 0: never

    def check(self) -> None:
        """ValueError if there is nowhere to write, or a time that cannot be."""
        if not self.output:
            raise ValueError("run.output is empty; name a folder for checkpoints and logs")
        check_writable(self.output, "run.output")
        if self.stop_after < 0:
            raise ValueError(f"run.stop_after={self.stop_after} is negative; 0 means never")

    @property
    def folder(self) -> Path:
        return Path(self.output).expanduser()


@dataclasses.dataclass(frozen=True)
class Loop:
    """How often the loop of a run does what; counted in updates."""

    steps: int  # updates of the whole run
    batch_size: int  # videos per update, over all devices
    log_every: int
    save_every: int
    keep: int  # checkpoints kept for resuming
    sample_every: int = 0  # 0: never


LOOP_FIELDS = ("steps", "log_every", "save_every", "sample_every", "keep")  # free when resuming


def loop_of(config) -> Loop:
    """The loop's part of a system's own settings, which have fields of the same names."""
    return Loop(**{field.name: getattr(config, field.name) for field in dataclasses.fields(Loop)})
