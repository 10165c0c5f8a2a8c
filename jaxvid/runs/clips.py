"""What a mode makes of one video after another, with the networks loaded once."""

import copy
from collections.abc import Callable

from ml_collections import ConfigDict

from jaxvid.runs.mode import Mode
from jaxvid.runs.requests import Generator
from jaxvid.runs.runner import Summary
from jaxvid.runs.serve import Answer

WHOLE = "0/1"  # the share: all that is made of a video


class Clips:
    """The function that serve.py calls for each video."""

    def __init__(self, mode: type[Mode], config: ConfigDict, work: Callable[..., Summary]):
        """work: `work(mode, config, load)` plans and runs, like scripts/sample.py.

        Raises:
          ValueError: a mode that makes nothing of a single video.
        """
        if not hasattr(mode, "take_clip"):
            why = f": {mode.no_clip}" if hasattr(mode, "no_clip") else ""
            raise ValueError(
                f"config.mode={config.get('mode')!r} makes nothing of a single video{why}; "
                "choose another config, or a script of your own"
            )
        self._mode, self._config, self._work = mode, config, work
        self._generator = None

    def __call__(self, video: str, output: str) -> Answer:
        config = copy.deepcopy(self._config)
        self._mode.take_clip(config, video)
        config.run.output, config.run.shard = output, WHOLE
        mode = self._mode(config)
        summary = self._work(mode, config, lambda requests: self._load(mode, requests))
        skipped = not (summary.done or summary.failures or summary.exit_code)
        kind = next(iter(summary.kinds.values()), "")
        cause = "; ".join(f"{id}: {cause}" for id, cause in summary.failures)
        return Answer(summary.exit_code, kind, cause or summary.stopped, skipped)

    def _load(self, mode: Mode, requests) -> Generator:
        """The generator of the video before, if it can go on with this one."""
        if self._generator is None or not mode.take_over(self._generator, requests):
            self._generator = None  # frees its memory first
            self._generator = mode.load(requests)
        return self._generator
