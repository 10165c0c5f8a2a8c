"""What scripts/sample.py asks of a mode, in the order in which it asks."""

from collections.abc import Sequence
from typing import Protocol

from jaxvid.runs.fingerprint import Provenance
from jaxvid.runs.plan import Plan
from jaxvid.runs.requests import Generator, Request


class Mode(Protocol):
    """A checked config of one mode. No method but `load` reads parameters.

    A mode that makes something of a single video has two members more, which runs.clips uses:
    `take_clip(config, path)` (static) changes a config so that it makes that video, and
    `take_over(generator, requests)` says whether a generator of another video now serves this one.
    Another mode may say in `no_clip` why not.

    Attributes:
      output: the folder of all outputs, "" if the config names none.
      together: whether several joined processes can make one request (`run.hosts=together`): its
        generator then works over jax.devices() of all of them, puts arrays there by
        core.distributed.place, takes them off by `whole`, and goes through the same programs in
        every process whatever happens in one (`agreed`).
    """

    output: str
    together: bool

    def requests(self) -> list[Request]:
        """All requests of the run; what is wrong with one of them stands in its `error`."""

    def provenance(self) -> Provenance:
        """What all requests share: settings that change outputs, and checkpoints."""

    def plan(self, requests: Sequence[Request]) -> Plan:
        """What the requests cost."""

    def load(self, requests: Sequence[Request]) -> Generator:
        """Parameters on the devices, ready to make any of the requests."""

    def finish(self) -> None:
        """Writes what belongs to the whole folder, after the last request."""
