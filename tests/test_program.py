"""How scripts end when what they print cannot be taken."""

import os
import subprocess
import sys
from pathlib import Path

from jaxvid.runs import gallery
from jaxvid.runs.causes import KILLED, explain_exit

SCRIPT = """
import sys
from jaxvid.core.program import main
def script(argv):
    for number in range(100_000):
        print(argv[0], number, flush=True)
    return 0
sys.exit(main(script))
"""


def test_a_reader_that_goes_away_is_no_mistake_in_the_command():
    command = [sys.executable, "-c", SCRIPT, "line"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], **pipes) as process:
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_names_that_stdout_cannot_print():
    code = "import sys\nfrom jaxvid.core.program import main\nmain(lambda argv: print(argv[0]))"
    done = subprocess.run(
        [sys.executable, "-c", code, "日本.mp4"],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("\\u65e5\\u672c.mp4\n", "")


def test_signals_and_names_that_python_has_no_words_for(tmp_path):
    kind, cause = explain_exit(-40, tmp_path / "log")
    assert kind == KILLED and "signal 40" in cause
    odd = os.fsdecode(b"bad\xff.mp4")
    card = gallery.describe("output", "video", f"{tmp_path}/{odd}", 3, tmp_path)
    assert card["src"] == "./bad%FF.mp4"
