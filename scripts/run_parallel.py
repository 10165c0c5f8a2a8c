"""Runs over a folder of videos, one process per GPU.

python scripts/run_parallel.py --video_root DIR --num_gpus 8 -- --config=configs/fdm_demo.py
python scripts/run_parallel.py --video_root DIR --num_gpus 8 --script my.py -- --in={video}

Results of `clip.mp4` go to the folder `clip/` beside it, with a log; `run_parallel.html` shows all.
Without --script each video is what scripts/sample.py makes of it with the config after `--`; the
process of a GPU then loads the networks once. The same command again does what is left. Flags may
be written with - or _ between words. `--plan` only says what is left.
"""

import argparse
import sys
from pathlib import Path

from jaxvid.core.program import Parser, main
from jaxvid.runs.parallel import USUAL_ARGUMENTS, ParallelConfig
from jaxvid.runs.parallel_run import run_parallel

OURS = Path(__file__).with_name("sample.py")


def parse(argv: list[str]) -> ParallelConfig:
    """The settings of a command line; what follows `--` belongs to the script."""
    cut = argv.index("--") if "--" in argv else len(argv)
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--video_root", required=True, help="folder, searched with its subfolders")
    add("--num_gpus", type=int, required=True, help="number of worker processes")
    usual = " ".join(USUAL_ARGUMENTS)
    add("--script", default=str(OURS), help=f"Python script; unless told otherwise it gets {usual}")
    add("--keep", action="store_true", help="the script takes many videos, see jaxvid.runs.serve")
    add("--plan", action="store_true", help="list the videos to do, and start none")
    add("--schedule", choices=("round_robin", "dynamic"), default="round_robin")
    add("--timeout", type=float, default=0.0, help="seconds for one video, loading included")
    add("--retries", type=int, default=1, help="further attempts after a failure")
    add("--grace", type=float, default=10.0, help="seconds a process has to end when told to")
    add("--no_resume", dest="resume", action="store_false", help="make everything again")
    again = "try videos again that failed in an earlier run (default), or leave them"
    add("--retry_failed", action="store_true", default=True, help=again)
    add("--no_retry_failed", dest="retry_failed", action="store_false")
    add("--fail_fast", action="store_true", help="stop after the first failed video")
    add("--max_failures", type=int, default=0, help="stop after so many; 0: never")
    fields = vars(parser.parse_args(list(map(underscored, argv[:cut]))))
    ours = Path(fields["script"]).resolve() == OURS.resolve()
    fields["keep"] |= ours
    arguments = argv[cut + 1 :]
    if ours and not any(word.startswith("--config") for word in arguments):
        raise ValueError("give a config: ... -- --config=configs/fdm_demo.py")
    if ours and "--plan" in arguments:
        raise ValueError("--plan has no effect after `--`: give it before, to list what is left")
    if ours and not fields["resume"]:
        arguments.append("--config.run.resume=False")
    return ParallelConfig(**fields, arguments=tuple(arguments))


def underscored(word: str) -> str:
    """`--fail-fast` as `--fail_fast`; values stay as they are."""
    name, equals, value = word.partition("=")
    dashed = name.startswith("--")
    return "--" + name[2:].replace("-", "_") + equals + value if dashed else word


if __name__ == "__main__":
    sys.exit(main(lambda argv: run_parallel(parse(argv))))
