"""FDM for scripts/sample.py."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from jaxvid.fdm import cost, sample
from jaxvid.fdm import requests as listing
from jaxvid.fdm.model import identity
from jaxvid.fdm.setup import sampling_settings
from jaxvid.fdm.visualise import picture_settings, visualise
from jaxvid.metrics.weights import lpips_embedder
from jaxvid.runs.fingerprint import Provenance, hash_json
from jaxvid.runs.plan import Plan
from jaxvid.runs.requests import Request


class FdmMode:
    """See runs.mode.Mode."""

    together = False

    def __init__(self, config: ConfigDict):
        self.settings = sampling_settings(config)
        self.output = str(self.settings.folder)
        self.embed = None

    def requests(self) -> list[Request]:
        if self.settings.needs_lpips:
            self.embed = lpips_embedder(self.settings.sampling.lpips)
        return listing.requests(self.settings)

    def provenance(self) -> Provenance:
        settings = hash_json(listing.result_settings(self.settings))
        return Provenance(settings, identity(self.settings.checkpoint))

    def plan(self, requests: Sequence[Request]) -> Plan:
        return cost.plan(self.settings, requests)

    def load(self, requests: Sequence[Request]) -> sample.Generator:
        del requests
        return sample.load(self.settings, self.embed)

    @staticmethod
    def take_clip(config: ConfigDict, path: str) -> None:
        config.data.update(name="videos", root=path, prepared="", test_videos=0)

    def take_over(self, generator: sample.Generator, requests: Sequence[Request]) -> bool:
        del requests
        return generator.take_over(self.settings)

    def finish(self) -> None:
        sample.write_model_config(self.settings)


def draw_schedule(config: ConfigDict) -> list[str]:
    """Pictures of the calls instead of samples (`--just_visualise`); returns what to print."""
    settings = picture_settings(config)
    embed = lpips_embedder(settings.sampling.lpips) if settings.needs_lpips else None
    return visualise(settings, embed)
