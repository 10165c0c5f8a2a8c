"""Times a mode by stage: python scripts/benchmark.py --config=configs/fdm_demo.py

Also for training configs. Two things are measured in turn (A B A B) with
  --against=OTHER_CONFIG            or
  --against_set=sampling.batch_size=4   the same config with other fields, or
  --torch_checkout=DIR              the authors' own code in PyTorch, same weights (training
                                    configs of FDM; videos of LongLive with random weights).
`--repeats`, `--warmup` and `--output=FILE.json` are for all. scripts/plan.py compiles for
devices that need not be there.
"""

import shlex
import sys
import time
from pathlib import Path

from jaxvid.core.config import load_config, override, parse_script
from jaxvid.core.files import check_writable
from jaxvid.core.program import Parser, main
from jaxvid.runs import benchmark as timing


def flags() -> Parser:
    parser = Parser(description=__doc__)
    parser.add_argument("--against", default="", metavar="CONFIG")
    parser.add_argument("--against_set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--torch_checkout", default="", metavar="DIR")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--output", default="outputs/benchmark.json")
    return parser


def subject(name: str, config) -> timing.Subject:
    """The stages of a sampling or a training config."""
    if config.mode == "longlive":
        from jaxvid.longlive.benchmark import sampling_subject
        from jaxvid.longlive.setup import sampling_settings

        return sampling_subject(name, sampling_settings(config))
    from jaxvid.fdm.benchmark import sampling_subject, training_subject
    from jaxvid.fdm.setup import sampling_settings, training_setup

    if "train" in config:
        if not config.run.output:
            config.run.output = "outputs/benchmark_run"  # named but not written
        return training_subject(name, training_setup(config))
    return sampling_subject(name, sampling_settings(config))


def other(config, args):
    """The second config of a pair, or None."""
    if args.against:
        return load_config(args.against)
    if args.against_set:
        config = config.copy_and_resolve_references()
        override(config, [text.removeprefix("config.") for text in args.against_set])
        return config
    return None


def benchmark(argv: list[str]) -> int:
    """Measures, prints a table and writes one JSON; returns the exit code."""
    args, config = parse_script(flags(), argv)
    if args.repeats < 1 or args.warmup < 0:
        raise ValueError(f"--repeats={args.repeats}, --warmup={args.warmup}: at least 1 and 0")
    check_writable(Path(args.output).expanduser().parent, "--output")
    if args.torch_checkout and config.mode != "longlive":
        from jaxvid.fdm.upstream import check_checkout

        check_checkout(args.torch_checkout)
    report = {
        "command": shlex.join(["python", "scripts/benchmark.py", *argv]),
        "date": time.strftime("%Y-%m-%d"),
        "environment": timing.environment(),
        "config": config.to_dict(),
    }
    report |= timed(config, args)
    print(f"figures: {timing.write_json(args.output, report)}")
    return 0


def timed(config, args) -> dict:
    """Measures one subject, or two in turn; prints tables."""
    second = other(config, args)
    load = timing.load()
    if args.torch_checkout:
        if config.mode == "longlive":
            from jaxvid.longlive.upstream_torch import paired_subjects
        else:
            from jaxvid.fdm.upstream import paired_subjects

        a, b, agreement = paired_subjects(config, args.torch_checkout)
        subjects = [a, b]
    else:
        subjects, agreement = [subject("A", config)], {}
        if second is not None:
            subjects.append(subject("B", second))
    result = {"load_before": load, "subjects": {}} | agreement
    single = len(subjects) == 1
    for s in subjects:
        found = timing.measure(s, args.repeats, args.warmup) if single else {}
        figures = s.derive(found) if found else {}
        kept = {"once": s.once, "stages": found, "facts": s.facts, "figures": figures}
        result["subjects"][s.name] = kept
        if s.once or found:
            rows = timing.rows(found, s.once)
            print(timing.table((s.name, "median", "min", "max", "n"), rows), end="\n\n")
        print("".join(f"{what}: {value:.4g}\n" for what, value in figures.items()))
    if not single:
        result["pair"] = timing.pair(*subjects, args.repeats, args.warmup)
        names = [s.name for s in subjects]
        head = (f"{names[0]} and {names[1]}", *names, f"{names[1]} / {names[0]}", "pairs")
        print(timing.table(head, timing.pair_rows(result["pair"])))
        result["config_b"] = second.to_dict() if second is not None else None
    return result | {"load_after": timing.load()}


if __name__ == "__main__":
    sys.exit(main(benchmark))
