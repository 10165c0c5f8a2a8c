"""What a mode makes of one video after another, with the networks loaded once."""

import copy
import dataclasses
import functools
import operator
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from jaxvid.core.config import PREFIX, build
from jaxvid.core.files import InputError
from jaxvid.runs.config import RunConfig
from jaxvid.runs.fingerprint import hash_json
from jaxvid.runs.mode import Mode
from jaxvid.runs.outcome import Summary
from jaxvid.runs.requests import Generator
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

    def refuse(self, words: Sequence[str]) -> None:
        """Raises ValueError for a `--config.field` of a command line that each video overrides."""
        settled = self._config_of("any.mp4", "any")
        for word in words:
            name = word.partition("=")[0]
            if not name.startswith(PREFIX):
                continue
            path = name.removeprefix(PREFIX).split(".")
            asked, got = (
                functools.reduce(operator.getitem, path, c) for c in (self._config, settled)
            )
            if asked != got:
                raise ValueError(
                    f"{name} has no effect here, since each video has its own place and folder: "
                    "leave it out, or use scripts/sample.py by itself"
                )

    def describe(self, videos: Sequence[str]) -> str:
        """Hash of the settings and checkpoints, the same whichever videos are there.

        videos: some of those to come; one that is damaged says nothing about the others.
        Raises:
          ValueError: a setting of the run, or what all videos that are not damaged meet alike.
        """
        build(RunConfig, dict(self._config.run) | {"output": "any"}, "config.run")
        reasons = set()
        for video in videos:
            try:
                return self._describe(video)
            except InputError:
                continue
            except ValueError as error:
                reasons.add(str(error))
        if len(reasons) == 1:
            raise ValueError(reasons.pop())
        return secrets.token_hex()  # equal to that of no other run: each video is looked at

    def _describe(self, video: str) -> str:
        mode = self._mode(self._config_of(video, str(Path(video).with_suffix(""))))
        if any(request.error for request in mode.requests()):
            raise InputError(video)
        provenance = dataclasses.asdict(mode.provenance())
        return hash_json([self._config.to_json_best_effort(), provenance])

    def __call__(self, video: str, output: str) -> Answer:
        config = self._config_of(video, output)
        mode = self._mode(config)
        summary = self._work(mode, config, lambda requests: self._load(mode, requests))
        skipped = not (summary.done or summary.failures or summary.exit_code)
        kind = next(iter(summary.kinds.values()), "")
        cause = "; ".join(f"{id}: {cause}" for id, cause in summary.failures)
        return Answer(summary.exit_code, kind, cause or summary.stopped, skipped)

    def _config_of(self, video: str, output: str) -> ConfigDict:
        config = copy.deepcopy(self._config)
        self._mode.take_clip(config, video)
        config.run.output, config.run.shard = output, WHOLE
        return config

    def _load(self, mode: Mode, requests) -> Generator:
        """The generator of the video before, if it can go on with this one."""
        if self._generator is None or not mode.take_over(self._generator, requests):
            self._generator = None  # frees its memory first
            self._generator = mode.load(requests)
        return self._generator
