"""How every script ends: a wrong input is one line and exit code 2, a bug keeps its traceback."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence


class Parser(argparse.ArgumentParser):
    """Reads flags, spelt out in full; raises ValueError for a mistake, see `main`."""

    def __init__(self, *args, **settings):
        super().__init__(*args, allow_abbrev=False, **settings)

    def error(self, message: str):
        raise ValueError(f"{message}; --help lists the flags")


def main(script: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Runs `script(argv)` and turns what a user can mend into one line on stderr.

    argv: None is the command line's.
    Returns:
      The script's exit code; 2 for wrong input or files, 130 after Ctrl-C, 141 if the reader of
      stdout went away.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be none that it can print
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return script(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError:  # nobody reads any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (ValueError, OSError) as error:
        if os.environ.get("JAXVID_TRACEBACK"):
            raise
        text = " ".join(str(error).split())
        print(f"{sys.argv[0]}: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
