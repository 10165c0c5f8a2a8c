"""Cosmos multiview for scripts/sample.py."""

import dataclasses
from collections.abc import Sequence

from ml_collections import ConfigDict

from jaxvid.core import distributed
from jaxvid.cosmos import generate, networks, planning
from jaxvid.cosmos import requests as listing
from jaxvid.cosmos.multirun import left_out
from jaxvid.cosmos.setup import sampling_settings
from jaxvid.runs.fingerprint import Provenance, hash_json
from jaxvid.runs.plan import Plan
from jaxvid.runs.requests import Request


class CosmosMode:
    """See runs.mode.Mode."""

    together = True
    no_clip = (
        "its samples follow control videos of drawn lanes and boxes, which a clip is not (folders "
        "of controls: configs/cosmos_multiview.py:multirun)"
    )

    def __init__(self, config: ConfigDict):
        self.settings = sampling_settings(config)
        self.output = config.get("run", {}).get("output", "")

    def requests(self) -> list[Request]:
        return listing.requests(self.settings)

    def provenance(self) -> Provenance:
        settings = hash_json(listing.result_settings(self.settings))
        return Provenance(settings, hash_json(networks.identity(self.settings)))

    def plan(self, requests: Sequence[Request]) -> Plan:
        found = planning.plan(self.settings, requests)
        first = distributed.process()[0] == 0  # of those that share out the requests
        notes = tuple(left_out(self.settings.multirun)) if first else ()
        return dataclasses.replace(found, notes=notes)

    def load(self, requests: Sequence[Request]) -> generate.Generator:
        return generate.load(self.settings, requests)

    def finish(self) -> None:
        pass
