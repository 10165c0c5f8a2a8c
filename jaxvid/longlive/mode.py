"""LongLive for scripts/sample.py."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from jaxvid.longlive import cost, models, sample
from jaxvid.longlive import requests as listing
from jaxvid.longlive.setup import sampling_settings
from jaxvid.runs.fingerprint import Provenance, hash_json
from jaxvid.runs.plan import Plan
from jaxvid.runs.requests import Request


class LongLiveMode:
    """See runs.mode.Mode."""

    together = True

    def __init__(self, config: ConfigDict):
        self.settings = sampling_settings(config)
        self.output = config.get("run", {}).get("output", "")

    def requests(self) -> list[Request]:
        return listing.requests(self.settings)

    def provenance(self) -> Provenance:
        settings = hash_json(listing.result_settings(self.settings))
        return Provenance(settings, hash_json(models.identity(self.settings)))

    def plan(self, requests: Sequence[Request]) -> Plan:
        return cost.plan(self.settings, requests)

    def load(self, requests: Sequence[Request]) -> sample.Generator:
        return sample.load(self.settings, requests)

    @staticmethod
    def take_clip(config: ConfigDict, path: str) -> None:
        config.sampling.video = path

    def take_over(self, generator: sample.Generator, requests: Sequence[Request]) -> bool:
        del requests  # their prompts are those of the settings
        return generator.take_over(self.settings)

    def finish(self) -> None:
        pass
