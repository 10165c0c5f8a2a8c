"""Trains a model.

python scripts/train.py --config=configs/fdm_demo_train.py --config.run.output=DIR

Flags of FDM's `video_train.py` are accepted as well (README, section "Coming from FDM").
"""

import sys

from jaxvid.core import distributed
from jaxvid.core.config import parse_arguments
from jaxvid.core.program import main


def train(argv: list[str]) -> int:
    from jaxvid.fdm.flags import training_overrides
    from jaxvid.fdm.setup import training_setup
    from jaxvid.fdm.training_run import run

    config, rest = parse_arguments(training_overrides(argv))
    if rest:
        raise ValueError(f"unknown argument {rest[0]}")
    setup = training_setup(config)
    distributed.start()
    distributed.keep_compilations()
    run(setup)
    return 0


if __name__ == "__main__":
    sys.exit(main(train))
