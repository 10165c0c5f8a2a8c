"""A folder of videos over worker processes: shares, crashes, timeouts, signals, resuming."""

import contextlib
import errno
import functools
import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxvid.core import distributed
from jaxvid.runs import parallel, parallel_marker, parallel_page, parallel_run, parallel_table
from jaxvid.runs.causes import INPUT, KILLED, MEMORY, TIMEOUT
from jaxvid.runs.parallel import ParallelConfig, find_videos, gpu_names
from jaxvid.runs.parallel_run import queues, run_parallel
from jaxvid.runs.parallel_worker import Worker, environment

ROOT = Path(__file__).parents[1]
SCRIPT = str(Path(__file__).with_name("parallel_script.py"))


@pytest.fixture
def folder(tmp_path):
    """Writes "videos" whose text says what becomes of them; returns their folder."""

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/')}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def go(folder, gpus=2, **fields) -> int:
    return run_parallel(ParallelConfig(str(folder), gpus, SCRIPT, **fields))


def result(path) -> dict:
    return json.loads((Path(path) / "result.json").read_text())


def marker(path) -> dict:
    return json.loads((Path(path) / parallel.MARKER).read_text())


def locked(path, lock, scandir=os.scandir):
    if Path(path) == lock:
        raise PermissionError(13, "Permission denied", str(path))
    return scandir(path)


def test_videos_are_found_but_not_results(folder, monkeypatch):
    root = folder(b="1", a="1", sub__c="1", same="1", holds="1", holds__by__others="1", empty="")
    (root / "same.MKV").write_text("1")
    (root / "notes.txt").write_text("1")
    (root / "a").mkdir()
    (root / "a" / "result.mp4").write_text("1")
    (root / "a" / parallel.MARKER).write_text("{}")
    (root / "old").mkdir()  # of a video that is gone
    (root / "old" / "result.mp4").write_text("1")
    (root / "old" / parallel.MARKER).write_text("{}")
    (root / "linked").symlink_to(root / "sub")
    (root / ".unfinished-1.mp4").write_text("1")
    videos, left_out = find_videos(root)
    assert left_out == [f"left out: {root}/linked: {parallel.LINKED}"]
    names = [str(video.path.relative_to(root)) for video in videos]
    wanted = "a.mp4 b.mp4 empty.mp4 holds.mp4 same.MKV same.mp4 sub/c.mp4"
    assert names == wanted.split()
    errors = {v.path.name: v.error for v in videos if v.error}
    assert errors.keys() == {"same.mp4", "same.MKV", "holds.mp4", "empty.mp4"}
    assert "same.MKV and same.mp4" in errors["same.mp4"] and "0 bytes" in errors["empty.mp4"]
    monkeypatch.setattr(os, "scandir", lambda path: locked(path, root / "sub"))
    assert f"left out: {root}/sub: {parallel.UNREADABLE}" in find_videos(root)[1]
    monkeypatch.undo()
    (root / "none").mkdir()
    with pytest.raises(ValueError, match="holds no"):
        find_videos(root / "none")


def test_any_script_runs_and_what_is_done_is_left(folder, capsys):
    root = folder(a="go", sub__b="go", c="go")
    assert go(root) == 0
    found = {p: result(root / p) for p in ("a", "c", "sub/b")}
    assert [facts["gpu"] for facts in found.values()] == ["0", "1", "0"]
    assert len({facts["pid"] for facts in found.values()}) == 3
    assert "working on" in (root / "a" / parallel.LOG).read_text()
    assert go(root) == 0 and "0 done, 3 skipped" in capsys.readouterr().out
    (root / "a" / "result.json").unlink()  # lost
    os.utime(root / "c.mp4", (1, 1))  # another file, as far as we know
    assert go(root) == 0 and "2 done, 1 skipped" in capsys.readouterr().out
    assert go(root, resume=False) == 0 and "3 done" in capsys.readouterr().out
    assert {result(root / p)["pid"] for p in found}.isdisjoint(f["pid"] for f in found.values())


def test_arguments_of_scripts(tmp_path):
    config = ParallelConfig(str(tmp_path), 1, SCRIPT, ("--in={video}", "-o", "{output}/x"))
    video, output = tmp_path / "{output}.mp4", tmp_path / "b"
    assert config.command_of(tmp_path / "a.mp4", output)[0] == f"--in={tmp_path}/a.mp4"
    usual = ParallelConfig(str(tmp_path), 1, SCRIPT, ("--x",)).command_of(video, output)
    assert usual == ["--x", "--video_path", str(video), "--output_dir", str(output)]


def test_a_kept_worker_survives_failures_and_is_replaced_after_a_crash(folder, capsys):
    root = folder(a="go", b="fail", c="go", d="crash", e="go", f="once", g="memory", h="go")
    assert go(root, gpus=1, keep=True) == 3
    pids = {name: result(root / name)["pid"] for name in "acefh"}
    assert pids["a"] == pids["c"] and len(set(pids.values())) == 4  # two crashes, one twice
    assert [marker(root / name)["kind"] for name in "bdg"] == [INPUT, KILLED, MEMORY]
    assert [marker(root / name)["attempts"] for name in "abdfg"] == [1, 1, 2, 2, 2]
    text = capsys.readouterr().out
    assert "5 done, 0 skipped, 3 failed" in text and "SIGKILL" in text
    assert f"{root}/b.mp4: bad input: no such luck; log: {root}/b/{parallel.LOG}" in text
    assert "working on" in (root / "h" / parallel.LOG).read_text()


def test_processes_that_fail_or_hang(folder, capsys):
    root = folder(a="hang", b="go", c="fail", d="go")
    begin = time.monotonic()
    assert go(root, timeout=3, retries=0, grace=1) == 3
    assert time.monotonic() - begin < 15
    assert marker(root / "a")["kind"] == TIMEOUT and marker(root / "b")["status"] == "done"
    assert "exit code 1: ValueError: no such luck" in marker(root / "c")["cause"]
    assert gone(int((root / "a" / "pid").read_text()))
    capsys.readouterr()
    assert go(root, retry_failed=False) == 3
    assert "0 done, 2 skipped, 0 failed, 2 failed before" in capsys.readouterr().out


def test_a_script_that_is_kept_makes_what_is_missing_or_changed(folder, capsys):
    root = folder(a="go", b="go", c="fail")
    model = root / "model"
    model.write_text("first")
    again = functools.partial(go, root, gpus=1, keep=True, arguments=(f"--model={model}",))
    assert again() == 3 and "2 done, 0 skipped, 1 failed" in capsys.readouterr().out
    assert again(retry_failed=False) == 3
    assert "0 done, 2 skipped, 0 failed, 1 failed before" in capsys.readouterr().out
    model.write_text("second")
    assert (
        again(retry_failed=False) == 3 and "2 done, 0 skipped, 1 failed" in capsys.readouterr().out
    )


def test_a_video_that_hangs_holds_up_no_other_worker(folder, capsys):
    root = folder(a="deaf", **{name: "0.8" for name in "bcde"})  # at work when `a` is told to end
    assert go(root, timeout=3, retries=0, grace=5, schedule="dynamic") == 3
    ends = [line for line in capsys.readouterr().out.splitlines() if ": GPU " in line]
    assert "a.mp4: failed" in ends[-1] and "timed out" in ends[-1] and len(ends) == 5


def test_videos_that_vanish_fail_alone(folder, capsys):
    root = folder(a="remove", b="go", c="vanish", d="go")
    assert go(root, gpus=1) == 3
    text = capsys.readouterr().out
    assert f"b.mp4: bad input: {parallel.GONE}" in text and "2 done, 0 skipped, 2 failed" in text
    assert marker(root / "c")["kind"] == INPUT and marker(root / "c")["attempts"] == 1
    assert not (root / "b").exists() and (root / parallel_page.NAME).exists()


def test_one_page_shows_all_videos(folder):
    root = folder(a="go", sub__b="fail", empty="")
    (root / "a").mkdir()
    (root / "a" / parallel.MARKER).write_text("{}")
    (root / "a" / "x.mp4").write_text("1")
    assert go(root) == 3
    text = (root / parallel_page.NAME).read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    assert [(row["id"], row["status"]) for row in data] == [
        ("a.mp4", "done"), ("empty.mp4", "failed"), ("sub/b.mp4", "failed")
    ]  # fmt: skip
    media = [[item["src"] for item in row["media"]] for row in data]
    assert media[0] == ["./a.mp4", "./a/x.mp4", f"./a/{parallel.LOG}"]
    assert media[2] == ["./sub/b.mp4", f"./sub/b/{parallel.LOG}"]
    assert "0 bytes" in data[1]["error"] and "no such luck" in data[2]["error"]


def test_a_terminal_shows_the_workers(folder, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(parallel_table, "EVERY", 0.1)
    assert go(folder(a="0.8", b="go")) == 0
    pictures = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", sys.stdout.getvalue()).splitlines()
    assert any(re.match("GPU +video +time +at +done +failed", line) for line in pictures)
    assert any(re.match(r"0 +a.mp4 +0:0\d +working on .* 0 +0", line) for line in pictures)
    assert any(re.match("1 +- +1 +0", line) for line in pictures)


def test_flags_have_two_spellings(folder, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    parse = importlib.import_module("run_parallel").parse
    usual = [f"--video_root={folder()}", "--num-gpus", "2", f"--script={SCRIPT}"]
    for words in (["--fail-fast", "--no-resume"], ["--fail_fast", "--no_resume"]):
        config = parse([*usual, *words, "--", "--my-flag"])
        assert config.fail_fast and not config.resume and config.arguments == ("--my-flag",)
    assert not parse([*usual, "--no-retry-failed"]).retry_failed
    assert parse([*usual, "--no-retry-failed", "--retry-failed"]).retry_failed
    with pytest.raises(ValueError, match="--help lists"):
        parse([*usual, "--num"])


def test_limits_of_failures(folder):
    root = folder(a="fail", b="fail", c="fail", d="go")
    assert go(root, gpus=1, retries=0, fail_fast=True) == 4
    assert not (root / "b").exists()
    assert go(root, gpus=1, retries=0, max_failures=2) == 4
    assert (root / "b").exists() and not (root / "c").exists()


def test_places_that_cannot_be_written(folder, capsys, monkeypatch):
    root = folder(a="go", sub__b="go")
    access = os.access
    at_sub = lambda path, mode: Path(path).name != "sub" and access(path, mode)  # noqa: E731
    monkeypatch.setattr(os, "access", at_sub)
    assert go(root) == 3
    text = capsys.readouterr().out
    assert f"b.mp4: bad input: {root}/sub is read-only" in text and "1 done" in text
    monkeypatch.undo()

    def full(video, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", str(video.output))

    monkeypatch.setattr(parallel_marker, "write", full)
    assert go(root, resume=False) == 4
    assert "stopped: OSError: [Errno 28] No space left on device" in capsys.readouterr().out


def test_a_wrong_command_is_one_line(folder):
    root = folder(a="go", b="go")
    with pytest.raises(ValueError, match=r"--script=.*exit code 2"):
        go(root, keep=True, arguments=("--refuse",))
    assert not (root / "a" / "result.json").exists()
    silent = root / "silent.py"
    silent.write_text("raise SystemExit(2)")
    with pytest.raises(ValueError, match=r"before its first video: it does not call serve\.serve$"):
        run_parallel(ParallelConfig(str(root), 2, str(silent), keep=True))
    assert {p.name for p in root.iterdir()} == {"a.mp4", "b.mp4", "silent.py"}


def test_a_worker_that_dies_before_it_is_ready_is_quoted(folder):
    """It is given a video while it still loads, so its last words are in the log of the start."""
    root = folder(a="go")
    script = root / "script.py"
    script.write_text("import sys; input(); input(); sys.exit('no such model')")
    worker = Worker(ParallelConfig(str(root), 1, str(script), keep=True), 0, "0")
    video = find_videos(root)[0][0]
    video.output.mkdir()
    worker.start(root / parallel.LOG)
    worker.give(video)
    wait_until(lambda: (ended := worker.outcome()) and ended.cause == "exit code 1: no such model")


def test_dynamic_schedule_is_close_to_the_ideal_split(folder):
    """One of ten units and ten of one, over two workers: within 15 % of ten units."""
    unit = 0.3
    lengths = {f"v{n}": str(unit) for n in range(10)} | {"v4": str(10 * unit) + " " * 50}
    root = folder(**lengths, v10=str(unit))
    assert go(root, schedule="dynamic", keep=True) == 0
    found = [result(p.with_suffix("")) for p in root.glob("*.mp4")]
    took = max(f["end"] for f in found) - min(f["start"] for f in found)
    assert took < 1.15 * 10 * unit
    assert len({f["pid"] for f in found}) == 2


def test_queues():
    videos = [parallel.Video(Path(f"{n}.mp4"), n) for n in (1, 5, 2, 4, 3)]
    names = lambda queue: [v.bytes for v in queue]  # noqa: E731
    assert [names(q) for q in queues(videos, 2, "round_robin")] == [[1, 2, 3], [5, 4]]
    first, second = queues(videos, 2, "dynamic")
    assert first is second and names(first) == [5, 4, 3, 2, 1]


def test_gpus_of_workers():
    assert gpu_names(2, {"CUDA_VISIBLE_DEVICES": "4,GPU-7,6"}, []) == ["4", "GPU-7"]
    assert gpu_names(3, {}, []) == ["0", "1", "2"]
    for environ, devices in (({"CUDA_VISIBLE_DEVICES": "4"}, []), ({}, ["nvidia0"])):
        with pytest.raises(ValueError, match="use at most 1"):
            gpu_names(2, environ, devices)
    names = ["SLURM_ARRAY_TASK_ID", "JAXVID_PROCESSES", "JAXVID_PROCESS_INDEX"]
    names += [name for launcher in distributed.LAUNCHERS for name in launcher if name]
    kept = {"PATH": "x", "SLURM_JOB_ID": "5", "SLURM_CPUS_PER_TASK": "4"}
    found = environment("3", dict.fromkeys(names, "2") | kept)
    assert {name: found[name] for name in kept} == kept and not set(names) & found.keys()
    assert found["CUDA_VISIBLE_DEVICES"] == "3"


def gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    return True


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_process_outlives_an_interrupted_run(folder, keep, number, code):
    root = folder(a="child", b="hang")
    command = [sys.executable, f"{ROOT}/scripts/run_parallel.py", f"--video_root={root}"]
    command += ["--num_gpus=2", "--grace=5", f"--script={SCRIPT}", *["--keep"] * keep]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    files = [root / "a" / "pid", root / "b" / "pid"]
    wait_until(lambda: all(f.exists() and f.read_text() for f in files))
    assert marker(root / "a")["status"] == "running"  # before there is any output
    process.send_signal(number)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == code, text
    assert "same command again" in text or number == signal.SIGKILL
    if number == signal.SIGINT:
        files.append(root / "a" / "child")
    else:  # of a killed run, what scripts start themselves is theirs to end
        os.kill(int((root / "a" / "child").read_text()), signal.SIGKILL)
    wait_until(lambda: all(gone(int(f.read_text())) for f in files))


def test_two_runs_in_one_folder(folder):
    root = folder(a="2", b="go")
    command = [sys.executable, f"{ROOT}/scripts/run_parallel.py", f"--video_root={root}"]
    process = subprocess.Popen([*command, "--num_gpus=1", f"--script={SCRIPT}"])
    wait_until(lambda: (root / "a" / parallel.LOG).exists())
    with pytest.raises(ValueError, match="another run_parallel"):
        go(root)
    assert process.wait(timeout=30) == 0
    assert not (root / parallel_run.LOCK).exists()


def test_the_lock_of_a_run_that_just_ended_is_no_lock(folder, monkeypatch):
    root, lock = folder(a="go"), parallel_run.lock

    def removed(file, *arguments, **options):
        (root / parallel_run.LOCK).unlink()
        return lock(file, *arguments, **options)

    monkeypatch.setattr(parallel_run, "lock", removed)
    with pytest.raises(ValueError, match="another run_parallel"):
        go(root)


@pytest.mark.slow
def test_jaxvid_over_a_folder(tmp_path):
    """The demo model completes three copies of the demo's clip; one file is cut off."""
    clip = (ROOT / "data" / "clips" / "maze_walk.mp4").read_bytes()
    for name in ("a.mp4", "sub/b.mov", "c.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(clip)
    (tmp_path / "cut.mp4").write_bytes(clip[:3000])
    command = [sys.executable, "scripts/run_parallel.py", f"--video_root={tmp_path}"]
    command += ["--num_gpus=2", "--", "--config=configs/fdm_demo.py:tiny"]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert first.returncode == 3 and "3 done, 0 skipped, 1 failed" in first.stdout, first
    samples = [(tmp_path / n / "samples/sample_0000-0.npy").read_bytes() for n in ("a", "sub/b")]
    assert samples[0] == samples[1]
    (tmp_path / "0.mp4").write_bytes(clip)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "1 done, 3 skipped, 1 failed" in again.stdout, again
    assert (tmp_path / "a" / parallel.LOG).read_text().count("--- attempt") == 1
    wrong = [*command, "--config.checkpoint=/nowhere"]
    refused = subprocess.run(wrong, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "there is no checkpoint /nowhere" in refused.stderr, refused
    assert not refused.stdout
