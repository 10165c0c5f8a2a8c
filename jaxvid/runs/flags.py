"""Short forms of the flags that are the same for every mode."""

from collections.abc import Sequence

from jaxvid.core.config import PREFIX

SWITCHES = {
    "--retry-failed": "run.retry_failed=True",
    "--no-retry-failed": "run.retry_failed=False",
    "--no-resume": "run.resume=False",
    "--overwrite": "run.overwrite=True",
    "--fail-fast": "run.fail_fast=True",
}
VALUES = {"--max-failures": "run.max_failures", "--shard": "run.shard"}


def run_overrides(argv: Sequence[str]) -> list[str]:
    """The command line with `--config.run...` in place of the short forms.

    Raises:
      ValueError: one that has no value.
    """
    found, words = [], list(argv)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word in SWITCHES:
            found.append(PREFIX + SWITCHES[word])
        elif name in VALUES:
            if not equals and not words:
                raise ValueError(f"{name} has no value")
            found.append(f"{PREFIX}{VALUES[name]}={value if equals else words.pop(0)}")
        else:
            found.append(word)
    return found
