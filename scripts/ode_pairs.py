"""Makes ODE pairs, from which a causal generator is made of a bidirectional one.

python scripts/ode_pairs.py --config=configs/longlive_train.py:ode --output=outputs/ode_pairs

Noise is carried along the flow of `models.transformer`, in float32, for every prompt of
`data.prompts`; what is there already is not made again. `--steps`, `--shift`, `--guidance`:
of Euler's method; `--limit`: only so many prompts; `--batch_size`: videos at a time.
"""

import sys
from pathlib import Path

from jaxvid.core import distributed
from jaxvid.core.config import parse_script
from jaxvid.core.files import check_writable
from jaxvid.core.program import Parser, main
from jaxvid.longlive.ode_pairs import PairsConfig
from jaxvid.longlive.pair_making import make_pairs
from jaxvid.longlive.train_setup import training_setup


def flags() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--shift", type=float, default=8.0)
    parser.add_argument("--guidance", type=float, default=6.0)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--batch_size", type=int, default=1)
    return parser


def pairs(argv: list[str]) -> int:
    """Config, checks, videos; returns the exit code."""
    args, config = parse_script(flags(), argv)
    if args.limit < 0 or args.batch_size < 1:
        raise ValueError(f"--limit={args.limit}, --batch_size={args.batch_size}: at least 0 and 1")
    config.run.output = str(args.output)
    check_writable(args.output.expanduser(), "--output")
    setup = training_setup(config)
    how = PairsConfig(args.steps, args.shift, args.guidance)
    distributed.keep_compilations()
    make_pairs(setup, how, args.output.expanduser(), args.limit, args.batch_size)
    return 0


if __name__ == "__main__":
    sys.exit(main(pairs))
