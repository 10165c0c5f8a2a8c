"""Makes videos: python scripts/sample.py --config=configs/fdm_demo.py

`--plan` says what would be done and what it costs. Flags of FDM's `video_sample.py`, of both
generations, are accepted as well (README, section "Coming from FDM").
"""

import sys

import jax

from jaxvid.core import distributed
from jaxvid.core.config import build, parse_arguments
from jaxvid.core.files import check_writable
from jaxvid.core.program import main
from jaxvid.fdm import sample as fdm
from jaxvid.fdm.flags import sampling_overrides
from jaxvid.fdm.model import identity
from jaxvid.fdm.setup import sampling_settings
from jaxvid.fdm.visualise import picture_settings, visualise
from jaxvid.metrics.weights import lpips_embedder
from jaxvid.runs.config import RunConfig
from jaxvid.runs.fingerprint import Provenance, hash_json
from jaxvid.runs.plan import print_plan
from jaxvid.runs.runner import run
from jaxvid.runs.share import this_share
from jaxvid.runs.survey import survey


def sample(argv: list[str]) -> int:
    """Config, requests, plan, run; returns the runner's exit code."""
    config, rest = parse_arguments(sampling_overrides(argv))
    only_plan = "--plan" in rest
    if unknown := [word for word in rest if word != "--plan"]:
        raise ValueError(f"unknown argument {unknown[0]}")
    if config.get("sampling", {}).get("visualise"):
        return draw_schedule(config)
    distributed.start()  # before anything that touches a device, such as reading a .pt file
    distributed.keep_compilations()
    settings = sampling_settings(config)
    run_fields = dict(config.get("run", {})) | {"output": str(settings.folder)}
    run_config = build(RunConfig, run_fields, "config.run")
    check_writable(run_config.output, "output")
    embed = lpips_embedder(settings.sampling.lpips) if settings.needs_lpips else None
    requests = fdm.requests(settings)
    provenance = Provenance(hash_json(fdm.result_settings(settings)), identity(settings.checkpoint))
    process = (jax.process_index(), jax.process_count())
    plan = fdm.plan(settings, requests)
    if only_plan:
        share = this_share(run_config.shard, process).select(requests)
        print_plan(plan, survey(share, run_config, provenance))
        return 0
    print("\n".join(plan.lines()), flush=True)
    summary = run(lambda: fdm.load(settings, embed), requests, run_config, provenance, process)
    if not summary.stopped:
        fdm.write_model_config(settings)
    return summary.exit_code


def draw_schedule(config) -> int:
    """Pictures of the calls instead of samples (`--just_visualise`)."""
    settings = picture_settings(config)
    embed = lpips_embedder(settings.sampling.lpips) if settings.needs_lpips else None
    print(*visualise(settings, embed), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sample))
