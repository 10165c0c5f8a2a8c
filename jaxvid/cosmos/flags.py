"""Upstream's command line, `examples/multiview.py -i SPEC.json -o OUT`, as overrides of ours.

`-i` (`--input-files`) makes it one; the base is `--config`, by default configs/cosmos_multiview.py,
and `--config.field=value` wins. Names take `-` or `_`, values follow a blank or `=`.
"""

import dataclasses
from collections import deque
from collections.abc import Sequence

from jaxvid.core.config import PREFIX, nearest
from jaxvid.cosmos.spec import Overrides, Spec

CONFIG = "configs/cosmos_multiview.py"
SHORT = {"-i": "input_files", "-o": "output_dir", "-h": "help"}
OUTPUT = f"{PREFIX}run.output"
CONTROL = ("control:view-config", "view-config", "control:None", "None")
VIEW_FLAGS = ("input_path", "control_path", "num_conditional_frames_per_view")
TEXTS = ("prompt", "prompt_path", "negative_prompt")  # also those that look like numbers
YES_NO = {"true": "True", "false": "False"}


@dataclasses.dataclass(frozen=True)
class Flag:
    """What becomes of a flag: `field` takes its value, or `note` says why nothing does."""

    field: str = ""
    note: str = ""
    values: int = 1  # words that follow; 0: a switch, with a form --no-...


FLAGS = {
    "input_files": Flag("sampling.specs", values=-1),
    "output_dir": Flag("run.output"),
    "checkpoint_path": Flag("models.transformer"),
    "model": Flag(),
    "experiment": Flag(note="its settings are those of the release"),
    "config_file": Flag(note="unused upstream"),
    "context_parallel_size": Flag(
        note="all devices are used; sampling.upstream_ranks repeats the noise of so many ranks"
    ),
    "disable_guardrails": Flag(values=0),
    "offload_guardrail_models": Flag(note="no guardrails are shipped", values=0),
    "keep_going": Flag(values=0),
    "profile": Flag(note="the manifest has the seconds of each sample", values=0),
    "benchmark": Flag(note="unused upstream", values=0),
    "compile_tokenizer": Flag(note="unused upstream"),
    "enable_parallel_tokenizer": Flag(note="unused upstream", values=0),
    "parallel_tokenizer_grid": Flag(note="unused upstream", values=2),
    "help": Flag(values=0),
    **{field.name: Flag(f"overrides.{field.name}") for field in dataclasses.fields(Overrides)},
}


EXPERIMENTS = (  # upstream's names of configs whose networks have the settings of the release
    "buttercup_transfer2p5_2b_mv_7views_res720p_fps10_t8_fromfinetuned12knofpsuniform_"
    "mads720pmulticaps29frames_world_scenario_nofps_uniform",
    "transfer2_auto_multiview_post_train_example",
)


def check_experiment(name: str) -> None:
    """Raises ValueError for a config of upstream's whose settings are not known here."""
    if name not in (*EXPERIMENTS, "None"):
        raise ValueError(
            f"--experiment={name} is none of {', '.join(EXPERIMENTS)}, whose networks are the "
            "release's: leave it out, and give upstream's network arguments as a .json with "
            "--config.models.settings=FILE if they differ"
        )


DEFAULTS = {field.name: field.default for field in dataclasses.fields(Spec) if field.name in FLAGS}


def multiview_overrides(argv: Sequence[str]) -> list[str]:
    """The command line with fields of ours in place of upstream's flags.

    Raises:
      ValueError: an unknown flag or experiment, a flag without its value, or guardrails that are
        asked for.
    """
    if not any(_name(word) == "input_files" for word in argv) and not set(argv) & set(CONTROL[:2]):
        return list(argv)
    given, rest = _read(deque(argv))
    if "help" in given:
        print(usage())
        raise SystemExit(0)
    if "input_files" not in given:
        raise ValueError("-i (--input-files) is missing: name the spec files, .json or .jsonl")
    fields = {"sampling.layout": "flat"} | _fields(given)
    if "output_dir" not in given and not any(word.startswith(OUTPUT) for word in rest):
        raise ValueError(f"-o (--output-dir) is missing: name a folder, or give {OUTPUT}=FOLDER")
    if not any(word == "--config" or word.startswith("--config=") for word in rest):
        rest = [f"--config={CONFIG}", *rest]
    return [*(f"{PREFIX}{field}={value}" for field, value in fields.items()), *rest]


def _fields(given: dict[str, list[str]]) -> dict[str, str]:
    """Values of config fields; prints the notes of flags that have none."""
    fields = {}
    check_experiment(given.get("experiment", ["None"])[0])
    for name, values in given.items():
        flag, shown = FLAGS[name], f"--{name.replace('_', '-')}"
        if flag.note:
            print(f"{shown}: {flag.note}", flush=True)
        elif name == "input_files":
            fields[flag.field] = str(tuple(values))
        elif flag.field:
            value = values[0]
            if value != "None":  # upstream's word for: as in the spec
                text = name in TEXTS
                fields[flag.field] = repr(value) if text else YES_NO.get(value.lower(), value)
    if given.get("model", ["auto/multiview"]) != ["auto/multiview"]:
        raise ValueError(f"--model={given['model'][0]} is not auto/multiview, the only one here")
    if given.get("keep_going") == ["False"]:
        fields["run.fail_fast"] = "True"
    if given.get("disable_guardrails", ["True"]) == ["False"]:
        raise ValueError(
            "--no-disable-guardrails asks for guardrails, and none are shipped: leave it out and "
            "name yours with --config.safety.prompt and --config.safety.video"
        )
    if "disable_guardrails" not in given:
        print("guardrails: none are shipped; safety.prompt and safety.video name your own")
    return fields


def _read(words: deque) -> tuple[dict[str, list[str]], list[str]]:
    """Values by flag, and the words that are ours."""
    given, rest, in_view = {}, [], False
    while words:
        word = words.popleft()
        if word in CONTROL:
            in_view = True
            print(f"{word}: without effect, as upstream: views come from the spec files")
            continue
        name, equals, value = _name(word), "=" in word, word.partition("=")[2]
        if word.startswith(("--config", "--plan")) and name not in FLAGS:
            rest.append(word)
            if not equals and word != "--plan" and words:
                rest.append(words.popleft())
        elif in_view and name in VIEW_FLAGS:
            _values(name, Flag(), [value] if equals else [], words)
        elif name.removeprefix("no_") in FLAGS and FLAGS[name.removeprefix("no_")].values == 0:
            given[name.removeprefix("no_")] = [str(not name.startswith("no_"))]
        elif name in FLAGS:
            given[name] = _values(name, FLAGS[name], [value] if equals else [], words)
        else:
            raise ValueError(
                f"{word.partition('=')[0]} is no flag of upstream's{nearest(name, FLAGS)}"
            )
    return given, rest


def _values(name: str, flag: Flag, found: list[str], words: deque) -> list[str]:
    """The words that belong to a flag."""
    while words and (flag.values < 0 or len(found) < flag.values):
        if words[0].startswith("-") and not words[0][1:].replace(".", "").isdigit():
            break
        if flag.values < 0 and words[0] in CONTROL:
            break
        found.append(words.popleft())
    if not found or len(found) < flag.values:
        raise ValueError(f"--{name.replace('_', '-')} has no value")
    return found


def _name(word: str) -> str:
    """A flag's name with underscores; "" for other words."""
    head = word.partition("=")[0]
    if head in SHORT:
        return SHORT[head]
    return head[2:].replace("-", "_") if head.startswith("--") else ""


def usage() -> str:
    """What upstream's `--help` tells, with what becomes of each flag."""
    lines = [
        "usage: scripts/sample.py -i SPEC.json ... -o FOLDER [OPTIONS] [control:view-config ...]"
    ]
    lines += ["Auto multiview model inference script", ""]
    short = {name: flag for flag, name in SHORT.items()}
    for name, flag in FLAGS.items():
        shown = ", ".join(filter(None, (short.get(name), f"--{name.replace('_', '-')}")))
        told = f"config.{flag.field}" if flag.field else flag.note
        if DEFAULTS.get(name) is not None:
            told += f", {DEFAULTS[name]} where a spec file says nothing"
        lines.append(f"  {shown:32} {told}".rstrip())
    lines += ["", "control:view-config, without effect as upstream; views come from spec files:"]
    lines += [f"  --{name.replace('_', '-')}" for name in VIEW_FLAGS]
    return "\n".join(lines)
