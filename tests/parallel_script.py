"""A script that takes a video: python parallel_script.py --video_path V --output_dir O

The text in the "video" says what to do: sleep SECONDS, crash, crash once, fail, memory, hang, deaf
(to SIGTERM), child, vanish (the video itself), remove (b.mp4 beside it). With --serve it takes
many, with --model=FILE the file's text is part of it. It prints what could be taken for an answer,
were that looked for there.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def work(video: str, output: str) -> None:
    start, word = time.time(), Path(video).read_text().split()[0]
    print("working on", video, flush=True)
    if word == "child":
        child = subprocess.Popen(["sleep", "600"])
        Path(output, "child").write_text(str(child.pid))
    if word == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if word in ("hang", "deaf", "child"):
        Path(output, "pid").write_text(str(os.getpid()))
        time.sleep(600)
    once = Path(output, "crashed")
    if word == "crash" or (word == "once" and not once.exists()):
        once.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "memory":
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
    if word == "remove":
        Path(video).with_name("b.mp4").unlink()
    if word == "vanish":
        Path(video).unlink()
    if word in ("fail", "vanish"):
        raise ValueError("no such luck")
    if word[0].isdigit():
        time.sleep(float(word))
    facts = {"start": start, "end": time.time(), "pid": os.getpid()}
    facts["gpu"] = os.environ["CUDA_VISIBLE_DEVICES"]
    Path(output, "result.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    print('{"code": 0}', [1], "a notice at the start", sep="\n", flush=True)
    if "--refuse" in sys.argv:
        sys.exit("parallel_script.py: refused" if "--serve" not in sys.argv else 2)
    if "--serve" in sys.argv:
        from jaxvid.runs.serve import serve

        models = [word.removeprefix("--model=") for word in sys.argv if "--model=" in word]
        sys.exit(serve(work, lambda videos: "".join(Path(m).read_text() for m in models)))
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    work(arguments["--video_path"], arguments["--output_dir"])
