"""The command line of upstream's multi-run tool, `--params_file FILE --control_videos ...`."""

from collections.abc import Sequence

from jaxvid.core.config import PREFIX, nearest
from jaxvid.cosmos.flags import FLAGS, check_experiment

CONFIG = "configs/cosmos_multiview.py:multirun"
FIELDS = {
    "params_file": "multirun.params",
    "control_videos": "multirun.controls",
    "prompts_folder": "multirun.prompts",
    "input_dir": "multirun.inputs",
    "output_base_dir": "run.output",
    "checkpoint_path": "models.transformer",
}
NOTES = {
    "num_gpus": "all devices are used",
    "experiment": FLAGS["experiment"].note,
}


def multirun_overrides(argv: Sequence[str]) -> list[str]:
    """The command line with fields of ours in place of the tool's flags.

    `--params_file` makes it one; names take `-` or `_`. `--config.field=value` wins.

    Raises:
      ValueError: an unknown flag or experiment, or a flag without its value.
    """
    if not any(_name(word) == "params_file" for word in argv):
        return list(argv)
    fields, rest, words = [], [], list(argv)
    while words:
        word = words.pop(0)
        name, (_, equals, value) = _name(word), word.partition("=")
        if name not in FIELDS and name not in NOTES:
            if not word.startswith("--config") and word != "--plan":
                raise ValueError(
                    f"{word.partition('=')[0]} is no flag of the multi-run tool"
                    f"{nearest(name, [*FIELDS, *NOTES])}"
                )
            rest.append(word)
            if word.startswith("--config") and not equals and words:
                rest.append(words.pop(0))
            continue
        if not equals:
            if not words:
                raise ValueError(f"--{name} has no value")
            value = words.pop(0)
        if name == "experiment":
            check_experiment(value)
        if name in NOTES:
            print(f"--{name}: {NOTES[name]}", flush=True)
        else:
            fields.append(f"{PREFIX}{FIELDS[name]}={value}")
    if not any(word == "--config" or word.startswith("--config=") for word in rest):
        rest = [f"--config={CONFIG}", *rest]
    return [*fields, *rest]


def _name(word: str) -> str:
    head = word.partition("=")[0]
    return head[2:].replace("-", "_") if head.startswith("--") else ""
