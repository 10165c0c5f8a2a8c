"""Makes videos: python scripts/sample.py --config=configs/fdm_demo.py

`--plan` says what would be done and what it costs. Command lines of the original codes are accepted
as well: flags of FDM's `video_sample.py`, of both generations (README, section "Coming from FDM"),
and `--upstream_config=FILE.yaml` of LongLive (section "LongLive").
"""

import sys

import jax
from ml_collections import ConfigDict

from jaxvid.core import distributed
from jaxvid.core.config import build, parse_arguments
from jaxvid.core.files import check_writable
from jaxvid.core.program import main
from jaxvid.fdm.flags import sampling_overrides
from jaxvid.fdm.mode import FdmMode, draw_schedule
from jaxvid.longlive.mode import LongLiveMode
from jaxvid.longlive.upstream import yaml_overrides
from jaxvid.runs.config import RunConfig
from jaxvid.runs.mode import Mode
from jaxvid.runs.plan import print_plan
from jaxvid.runs.runner import run
from jaxvid.runs.share import this_share
from jaxvid.runs.survey import survey

MODES = {"fdm": FdmMode, "longlive": LongLiveMode}


def sample(argv: list[str]) -> int:
    """Config, requests, plan, run; returns the runner's exit code."""
    config, rest = parse_arguments(sampling_overrides(yaml_overrides(argv)))
    if unknown := [word for word in rest if word != "--plan"]:
        raise ValueError(f"unknown argument {unknown[0]}")
    if config.get("sampling", {}).get("visualise"):
        print(*draw_schedule(config), sep="\n")
        return 0
    distributed.start()  # before anything that touches a device, such as reading a .pt file
    distributed.keep_compilations()
    return work(open_mode(config), config, only_plan="--plan" in rest)


def open_mode(config: ConfigDict) -> Mode:
    """The mode that the config names, with its settings checked."""
    name = config.get("mode")
    if name not in MODES:
        raise ValueError(f"config.mode={name!r} is not one of {', '.join(MODES)}")
    return MODES[name](config)


def work(mode: Mode, config: ConfigDict, only_plan: bool) -> int:
    """Prints the plan, then makes what is missing."""
    run_fields = dict(config.get("run", {})) | {"output": mode.output}
    run_config = build(RunConfig, run_fields, "config.run")
    check_writable(run_config.output, "output")
    requests = mode.requests()
    provenance, plan = mode.provenance(), mode.plan(requests)
    process = (jax.process_index(), jax.process_count())
    share = this_share(run_config.shard, process).select(requests)
    if only_plan:
        print_plan(plan, survey(share, run_config, provenance))
        return 0
    print("\n".join(plan.lines()), flush=True)
    summary = run(lambda: mode.load(share), requests, run_config, provenance, process)
    if not summary.stopped:
        mode.finish()
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main(sample))
