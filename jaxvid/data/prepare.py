"""Writes a dataset as array_record files that open fast and without TensorFlow:

    python -m jaxvid.data.prepare --name=maze_walk --data_dir=datasets/prepared --train_videos=100
    python -m jaxvid.data.prepare --name=mazes_cwvae --data_dir=datasets/prepared   # downloads

Afterwards a config's data section says `prepared="datasets/prepared"`.
"""

import dataclasses
import sys
from collections.abc import Sequence

from jaxvid.core.program import Parser, main
from jaxvid.data.sources import DataConfig

TEXT_FIELDS = ("name", "root", "resize")
NUMBER_FIELDS = ("size", "seed", "train_videos", "test_videos")


def prepare(argv: Sequence[str]) -> int:
    """Runs the command line; raises ValueError for what a user can mend."""
    parser = Parser(description=__doc__.splitlines()[0].rstrip(":"))
    defaults = {field.name: field.default for field in dataclasses.fields(DataConfig)}
    for name in TEXT_FIELDS:
        parser.add_argument(f"--{name}", default=defaults[name])
    for name in NUMBER_FIELDS:
        parser.add_argument(f"--{name}", type=int, default=defaults[name])
    parser.add_argument("--data_dir", required=True)
    flags = vars(parser.parse_args(argv))
    data_dir = flags.pop("data_dir")
    config = DataConfig(**flags)
    from jaxvid.data import builders  # TFDS takes a moment to import

    folder = builders.prepare(config, data_dir)
    print(f"prepared {config.name} in {folder}; use it with prepared={data_dir!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main(prepare))
