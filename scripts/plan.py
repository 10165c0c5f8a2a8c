"""Sizes a job before it is queued: python scripts/plan.py --config=CONFIG --target=h200:8

Compiles a mode's programs for devices that need not be there, runs nothing, and says for each what
memory it needs per device, its arithmetic and the seconds that this takes at the least, its
attention kernels, and what its collectives move. Targets: h200:8, h200:2x8 (hosts x GPUs), v5e:2x4,
v5p:2x2x2, v6e:4x4, several with commas between them, or the machine at hand (the default, `here`).
GPUs need the extra `gpu`, TPUs `tpu`. `--only=TEXT` leaves out programs without it in their names;
`--output=FILE.json` is where all figures go.
"""

import shlex
import sys
import time
from pathlib import Path

from jaxvid.core import ahead
from jaxvid.core.config import parse_script
from jaxvid.core.files import check_writable
from jaxvid.core.program import Parser, main
from jaxvid.cosmos import ahead as cosmos
from jaxvid.fdm import ahead as fdm
from jaxvid.longlive import ahead as longlive
from jaxvid.runs.benchmark import environment, table, write_json

MODES = {"cosmos": cosmos, "fdm": fdm, "longlive": longlive}
NOTE = (
    "Compiled by XLA, never run. Gigabytes and collectives are per device, TFLOP of all together; "
    "floor_seconds: the matrix products at the data sheet's rate, shared out evenly."
)


def flags() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument("--target", default=ahead.HERE, metavar="h200:8")
    parser.add_argument("--only", default="", metavar="TEXT", help="in the programs' names")
    parser.add_argument("--output", default="outputs/plan.json")
    return parser


def plan(argv: list[str]) -> int:
    """Prints a table for each target; writes one JSON."""
    args, config = parse_script(flags(), argv)
    if config.get("mode") not in MODES:
        raise ValueError(f"config.mode={config.get('mode')!r} is not one of {', '.join(MODES)}")
    check_writable(Path(args.output).expanduser().parent, "--output")
    targets = args.target.split(",")
    devices = list(map(ahead.target_devices, targets))  # nothing is compiled if one is wrong
    found = [planned(config, args.only, *pair) for pair in zip(targets, devices, strict=True)]
    report = {
        "command": shlex.join(["python", "scripts/plan.py", *argv]),
        "date": time.strftime("%Y-%m-%d"),
        "note": NOTE,
        "compiled_on": environment(),
        "config": config.to_dict(),
        "targets": found,
    }
    print(f"figures: {write_json(args.output, report)}")
    return 0


def planned(config, only: str, target: str, devices: list) -> dict:
    """The programs of a mode on one target."""
    mode, reports = MODES[config.mode], []
    programs = list(mode.programs(config, devices))
    chosen = [program for program in programs if only in program.name]
    if not chosen:
        names = ", ".join(repr(program.name) for program in programs)
        raise ValueError(f"--only={only}: no program has that in its name; there are {names}")
    for program in chosen:
        print(f"{target}: compiling {program.name}", file=sys.stderr, flush=True)
        reports.append(ahead.compile_report(program))
    axes = ", ".join(f"{axis}={n}" for axis, n in reports[0]["mesh"].items())
    print(f"{target}: {reports[0]['devices']}" + (f", mesh {axes}" if axes else ""))
    print(table(ahead.HEAD, list(map(ahead.row, reports))))
    result = {"target": target, "programs": reports}
    if hasattr(mode, "together") and chosen == programs:
        result["together"] = memory = mode.together(reports)
        sizes = (f"{name[:-3].replace('_', ' ')} {gb:.3g} GB" for name, gb in memory.items())
        print("together:", ", ".join(sizes))
    print(flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main(plan))
