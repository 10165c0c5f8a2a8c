"""How every script ends: a wrong input is one line and exit code 2, a bug keeps its traceback."""

import os
import sys
from collections.abc import Callable


def main(script: Callable[[list[str]], int]) -> int:
    """Runs `script(argv)` and turns what a user can mend into one line on stderr.

    Returns:
      The script's exit code; 2 for wrong input or files, 130 after Ctrl-C.
    """
    try:
        return script(sys.argv[1:])
    except (ValueError, OSError) as error:
        if os.environ.get("JAXVID_TRACEBACK"):
            raise
        text = " ".join(str(error).split())
        print(f"{sys.argv[0]}: {text}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
