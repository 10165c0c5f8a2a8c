"""Trains a model.

python scripts/train.py --config=configs/fdm_demo_train.py --config.run.output=DIR
python scripts/train.py --config=configs/longlive_train.py:dmd

Flags of FDM's `video_train.py` are accepted as well (README, section "Coming from FDM").
"""

import sys

from ml_collections import ConfigDict

from jaxvid.core import distributed
from jaxvid.core.config import parse_arguments
from jaxvid.core.program import main
from jaxvid.cosmos import training_run as cosmos
from jaxvid.fdm import training_run as fdm
from jaxvid.fdm.flags import training_overrides
from jaxvid.longlive import train_run as longlive
from jaxvid.runs.training import System, run

SYSTEMS = {
    "cosmos": cosmos.from_config,
    "fdm": fdm.from_config,
    "longlive": longlive.from_config,
}


def train(argv: list[str]) -> int:
    """Config, checks, updates; returns the exit code."""
    config, rest = parse_arguments(training_overrides(argv))
    if rest:
        raise ValueError(f"unknown argument {rest[0]}")
    system = open_system(config)
    distributed.start()
    distributed.keep_compilations()
    run(system)
    return 0


def open_system(config: ConfigDict) -> System:
    """The system that the config names, with its settings checked."""
    name = config.get("mode")
    if name not in SYSTEMS:
        raise ValueError(f"config.mode={name!r} is not one of {', '.join(SYSTEMS)}")
    if "train" not in config:
        raise ValueError("the config has no section train: it is one for scripts/sample.py")
    return SYSTEMS[name](config)


if __name__ == "__main__":
    sys.exit(main(train))
