"""Finds the frames that are best to observe, for sampling with `sampling.optimality`:

python scripts/optimal_schedule.py --config=configs/fdm_sample.py \\
  --config.checkpoint=checkpoints/mazes/ema_0.9999 --config.sampling.optimality=linspace-t

The config is that of the sampling. `--num_timesteps` and `--subset_size` say how many timesteps and
training videos judge a choice, `--step` searches one call of the scheme only, and so does each task
of a SLURM array. `--submit` prints what is left as an array. Flags of FDM's
`video_optimal_schedule.py` are accepted as well.
"""

import os
import sys
from collections.abc import Mapping

from jaxvid.core import distributed
from jaxvid.core.config import parse_arguments
from jaxvid.core.program import main
from jaxvid.fdm.flag_words import integer
from jaxvid.fdm.flags import sampling_overrides, search_flags
from jaxvid.fdm.optimal_run import SearchConfig, find_schedule, unfinished_steps
from jaxvid.fdm.setup import sampling_settings


def optimal_schedule(argv: list[str]) -> int:
    """Searches, or prints what is left as an array; returns the exit code."""
    flags, words = search_flags(argv)
    config, rest = parse_arguments(sampling_overrides(words, environ={}))
    if rest:
        raise ValueError(f"unknown argument {rest[0]}")
    search = read_search(flags, config.sampling.optimality, os.environ)
    config.sampling.optimality = ""
    settings = sampling_settings(config)
    if flags.get("submit") == "True":
        print(array(unfinished_steps(settings, search), flags))
        return 0
    distributed.keep_compilations()
    path = find_schedule(settings, search)
    left = unfinished_steps(settings, search)
    print(f"calls left: {left}" if left else f"the schedule is {path}")
    return 0


def read_search(flags: Mapping, kind: str, environ: Mapping) -> SearchConfig:
    """The search of the command line; a task of a SLURM array is a call of the scheme."""
    step = flags.get("step") or environ.get("SLURM_ARRAY_TASK_ID") or "-1"
    fields = {name: flags[name] for name in ("num_timesteps", "subset_size") if name in flags}
    numbers = {name: integer(name, text) for name, text in fields.items()}
    return SearchConfig(step=integer("step", step), **({"kind": kind} if kind else {}), **numbers)


def array(steps: list[int], flags: Mapping) -> str:
    """The unfinished calls as the argument of sbatch."""
    least = integer("slurm_min_array", flags.get("slurm_min_array", "0"))
    steps = [step for step in steps if step >= least]
    if not steps:
        return "nothing left to do"
    limit = f"%{flags['slurm_max_array']}" if "slurm_max_array" in flags else ""
    numbers = ",".join(map(str, steps))
    return f"give sbatch --array={numbers}{limit} and a script with this command without --submit"


if __name__ == "__main__":
    sys.exit(main(optimal_schedule))
