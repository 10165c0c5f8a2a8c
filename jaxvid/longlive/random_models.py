"""The text encoder drawn from a seed, for tests and for measuring speed: `models.random=True`."""

import dataclasses

from jaxvid.core.block_stream import Part, drawn
from jaxvid.wan import umt5
from jaxvid.wan.prompts import TextEncoder


@dataclasses.dataclass(frozen=True)
class RandomEncoder(TextEncoder):
    """A text encoder without a file; its blocks are drawn one by one."""

    seed: int = 0

    def identity(self) -> str:
        return f"random {self.seed} {dataclasses.asdict(self.config)}"

    def part(self) -> Part:
        abstract = umt5.abstract_parameters(self.config)
        return drawn(abstract, self.seed, self.config.dtype)
