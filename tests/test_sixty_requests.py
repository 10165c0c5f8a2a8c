"""Sixty requests of three modes on two processes, of which one is killed again and again.

Clips x prompts, rows of a JSONL file and items of a dataset: each run is shared by two processes
over loopback. In a round every run begins anew; one of its processes is killed with SIGKILL at a
random moment and started again, twice. JAXVID_KILL_ROUNDS says how many rounds: 3 if it is not set,
minutes long; 20, half an hour on two cores, is what the project claims:

    JAXVID_KILL_ROUNDS=20 pytest -m slow -s tests/test_sixty_requests.py
"""

import json
import os
import random
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
import small_fdm
import small_longlive
import small_multiview
from test_kill_resume import check_equal, complete, manifest, staging_folders, start
from test_multirun import add_clip, settings
from test_two_processes import environments

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
ROUNDS = int(os.environ.get("JAXVID_KILL_ROUNDS", 3))
KILLS = 2  # of one process in each run of a round
COUNTS = {"clips": 12, "rows": 20, "items": 28}


def command(arguments: list[str]) -> str:
    words = [sys.executable, f"{ROOT}/scripts/sample.py", *arguments]
    return f"{shlex.join(words)} --config.run.output={{output}}"


def clips(folder: Path) -> str:
    """3 clips of seven cameras with 4 prompts each."""
    looks = {look: f"A {look} road." for look in ("dry", "wet", "night rain", "snow/ice")}
    for uid in ("a", "b", "c"):
        add_clip(folder, uid, looks)
    return command(small_multiview.arguments(**settings(folder)))


def rows(folder: Path) -> str:
    """20 rows with one video: seeds and lengths of their own, some with ids."""
    video = str(ROOT / "data/clips/maze_walk.mp4")
    found = [
        {"video_path": video, "prompt1": "A maze.", "prompt2": f"Room {n}.", "seed": n}
        for n in range(20)
    ]
    for n in range(0, 20, 4):
        found[n]["id"] = f"room {n}"
    for n in range(0, 20, 5):
        found[n]["frames"] = 21
    path = folder / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, found)))
    return command(small_longlive.arguments(sampling__prompts=path))


def items(folder: Path) -> str:
    few = "--config.data.test_videos=28 --config.data.frames=10 --config.sampling.respacing=ddim4"
    return f"{small_fdm.command(folder)} {few}"


@pytest.fixture(scope="module", params=[clips, rows, items], ids=COUNTS)
def undisturbed(request, tmp_path_factory):
    """(command, folder, seconds) of a run by one process, which finds all programs compiled."""
    folder = tmp_path_factory.mktemp(request.param.__name__)
    found = request.param(folder)
    complete(found, folder / "first")
    seconds = complete(found, folder / "whole")
    assert len(manifest(folder / "whole").rows()) == COUNTS[request.param.__name__]
    check_equal(folder / "first", folder / "whole")
    return found, folder / "whole", seconds


def staged(output: Path, index: int) -> set[str]:
    """Folders for unfinished files of that process, dead or alive."""
    return {path for path in staging_folders(output) if f"-{index}-of-2-" in path}


class Pair:
    """Two processes that share the requests of one run."""

    def __init__(self, line: str, output: Path):
        self.line, self.output, self.environments = line, output, environments(2)
        self.lives = [self.begin(index) for index in range(2)]

    def begin(self, index: int):
        own = {"JAX_NUM_CPU_DEVICES": "1"}
        return start(self.line, self.output, self.environments[index] | own)

    def kill(self, index: int, earlier: set[str], seconds: float) -> bool:
        """So long after the process began to make something; whether it still did."""
        process = self.lives[index]
        while process.poll() is None and staged(self.output, index) <= earlier:
            time.sleep(0.002)
        time.sleep(seconds)
        alive = process.poll() is None
        if alive:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return alive

    def end(self) -> list[str]:
        texts = [process.communicate(timeout=600)[0] for process in self.lives]
        assert [process.returncode for process in self.lives] == [0, 0], "\n".join(texts)
        return texts

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.lives:
            process.kill()


def disturb(line: str, output: Path, seconds: float, rng: random.Random) -> int:
    """A run with kills; returns how many came before the process had done its share."""
    index, killed, earlier = rng.randrange(2), 0, set()
    with Pair(line, output) as pair:
        for _ in range(KILLS):
            killed += pair.kill(index, earlier, rng.uniform(0, seconds))
            earlier = staged(output, index)
            pair.lives[index] = pair.begin(index)
        pair.end()
    return killed


def test_a_process_killed_and_started_again(undisturbed, tmp_path):
    """Each output once, complete, with the bytes of a run that nobody disturbed; no leftovers."""
    line, whole, seconds = undisturbed
    killed = 0
    for number in range(ROUNDS):
        output = tmp_path / f"round_{number}"
        killed += disturb(line, output, 0.5 * seconds, random.Random(number))
        check_equal(output, whole)
        assert not [path for path in output.rglob("*") if path.name.startswith(".unfinished")]
        done = [row for row in manifest(output).rows() if row["status"] == "done"]
        assert {row["share"] for row in done} == {"0/2", "1/2"}
        print(f"round {number}: {killed} kills of {KILLS * (number + 1)} while work went on")
    assert killed >= ROUNDS, "most kills came too late"
