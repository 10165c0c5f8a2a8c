"""Makes videos: python scripts/sample.py --config=configs/fdm_demo.py

`--plan` says what would be done and what it costs. `--fail-fast`, `--max-failures=N`,
`--no-retry-failed`, `--no-resume`, `--overwrite` and `--shard=i/n` change how a run goes, and
`--config.field=value` any field of the config. Command lines of the original codes are accepted as
well: flags of FDM's `video_sample.py`, of both generations (README, section "Coming from FDM"),
`--upstream_config=FILE.yaml` of LongLive (section "LongLive"), and `-i SPEC.json -o FOLDER` of
Cosmos-Transfer2.5's `examples/multiview.py` (section "Cosmos multiview").
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from jaxvid.core import distributed
from jaxvid.core.config import build, parse_arguments
from jaxvid.core.files import check_writable
from jaxvid.core.program import main
from jaxvid.cosmos.flags import multiview_overrides
from jaxvid.cosmos.mode import CosmosMode
from jaxvid.cosmos.multirun_flags import multirun_overrides
from jaxvid.fdm.flags import sampling_overrides
from jaxvid.fdm.mode import FdmMode, draw_schedule
from jaxvid.longlive.mode import LongLiveMode
from jaxvid.longlive.upstream import yaml_overrides
from jaxvid.runs.clips import Clips
from jaxvid.runs.config import RunConfig
from jaxvid.runs.fingerprint import Provenance
from jaxvid.runs.flags import run_overrides
from jaxvid.runs.mode import Mode
from jaxvid.runs.outcome import PARTIAL, Summary
from jaxvid.runs.plan import print_plan
from jaxvid.runs.requests import Generator, Request
from jaxvid.runs.runner import run
from jaxvid.runs.serve import serve
from jaxvid.runs.share import this_share
from jaxvid.runs.survey import survey
from jaxvid.runs.together import follow

MODES = {"fdm": FdmMode, "longlive": LongLiveMode, "cosmos": CosmosMode}


def sample(argv: list[str]) -> int:
    """Config, requests, plan, run; returns the runner's exit code."""
    if {"--help", "-h"} & set(argv):
        print(__doc__)
        return 0
    # first, since upstreams' command lines refuse what they do not know
    argv = asked = run_overrides(argv)
    for translate in (multirun_overrides, multiview_overrides, yaml_overrides, sampling_overrides):
        argv = translate(argv)
    config, rest = parse_arguments(argv)
    if unknown := [word for word in rest if word not in ("--plan", "--serve")]:
        raise ValueError(f"unknown argument {unknown[0]}")
    if config.get("sampling", {}).get("visualise"):
        print(*draw_schedule(config), sep="\n")
        return 0
    if "--serve" in rest:  # asked by run_parallel: one video after another, on this process's GPU
        distributed.keep_compilations()
        clips = Clips(mode_class(config), config, make)
        clips.refuse(asked)
        return serve(clips, clips.describe)
    distributed.start(together(config))  # before anything touches a device, as reading a .pt does
    distributed.keep_compilations()
    return work(open_mode(config), config, only_plan="--plan" in rest)


def together(config: ConfigDict) -> bool:
    """Whether all processes make each request together, or each makes its share.

    Raises:
      ValueError: together, with a mode that cannot.
    """
    wanted = config.get("run", {}).get("hosts") == "together"
    if wanted and not mode_class(config).together:
        raise ValueError(
            f"run.hosts=together: a request of {config.mode} is made by one process; use divide"
        )
    return wanted


def mode_class(config: ConfigDict) -> type[Mode]:
    """The mode that the config names."""
    name = config.get("mode")
    if name not in MODES:
        raise ValueError(f"config.mode={name!r} is not one of {', '.join(MODES)}")
    return MODES[name]


def open_mode(config: ConfigDict) -> Mode:
    """The same, with the settings checked."""
    return mode_class(config)(config)


class Prepared(NamedTuple):
    """What is known of a run before anything is loaded; `share` is what this process does."""

    config: RunConfig
    requests: list[Request]
    share: list[Request]
    provenance: Provenance


def prepare(mode: Mode, config: ConfigDict) -> Prepared:
    """Checks the settings of the run and all requests."""
    run_fields = dict(config.get("run", {})) | {"output": mode.output}
    run_config = build(RunConfig, run_fields, "config.run")
    check_writable(run_config.output, "output")
    requests = mode.requests()
    share = this_share(run_config.shard, this_process(run_config)).select(requests)
    return Prepared(run_config, requests, share, mode.provenance())


def this_process(config: RunConfig) -> tuple[int, int]:
    """Which part of the share this process does, of how many."""
    return (0, 1) if config.hosts == "together" else distributed.process()


def work(mode: Mode, config: ConfigDict, only_plan: bool) -> int:
    """Prints the plan, then makes what is missing; returns the exit code."""
    if not only_plan and jax.process_index() > 0:
        found = prepare(mode, config)
        return follow(mode.load, found.requests, found.config.folder)
    if not only_plan:
        return make(mode, config, mode.load).exit_code
    found = prepare(mode, config)
    left = survey(found.share, found.config, found.provenance)
    print_plan(mode.plan(left.todo) if left.todo else None, left)
    return PARTIAL if left.broken else 0


def make(mode: Mode, config: ConfigDict, load: Callable[[list[Request]], Generator]) -> Summary:
    """Makes what is missing; `load` is called with that, if it is anything."""
    found = prepare(mode, config)
    print("\n".join(mode.plan(found.share).lines()), flush=True)
    summary = run(
        load,
        found.requests,
        found.config,
        found.provenance,
        this_process(found.config),
        lead=jax.process_count() > 1,
    )
    if not summary.stopped:
        mode.finish()
    return summary


if __name__ == "__main__":
    sys.exit(main(sample))
