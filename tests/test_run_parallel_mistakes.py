"""A folder of videos: what cannot have an effect, is misspelt, or stays out, is said."""

import importlib
from pathlib import Path

import pytest
from test_clips import CONFIG, FakeMode, make

from jaxvid.core.program import main
from jaxvid.runs.clips import Clips
from jaxvid.runs.parallel import MARKER, ParallelConfig, find_videos
from jaxvid.runs.parallel_run import run_parallel

ROOT = Path(__file__).parents[1]
WRITES = "import sys; open(sys.argv[-1] + '/out.txt', 'w').write('1')"


@pytest.fixture
def go(tmp_path):
    """Runs a script, given as text, over a.mp4 to d.mp4; returns the exit code."""
    for name in "abcd":
        (tmp_path / f"{name}.mp4").write_text("1")

    def run(text=WRITES, gpus=2, **fields):
        script = tmp_path / "script.py"
        script.write_text(text)
        return run_parallel(ParallelConfig(str(tmp_path), gpus, str(script), **fields))

    return run


def test_a_plan_lists_what_is_left(go, tmp_path, capsys):
    (tmp_path / "d.mp4").unlink()
    assert go() == 0
    (tmp_path / "b" / "out.txt").unlink()
    (tmp_path / "e.mp4").write_text("")
    capsys.readouterr()
    assert go(plan=True) == 3
    first, broken, todo = capsys.readouterr().out.splitlines()
    assert first == "1 videos to do, 2 already done" and todo == f"to do: {tmp_path}/b.mp4"
    assert broken.startswith(f"cannot run: {tmp_path}/e.mp4: the file is empty")
    assert not (tmp_path / "b" / "out.txt").exists()


def test_words_without_effect_are_refused(tmp_path, monkeypatch):
    clips = Clips(FakeMode, CONFIG, make)
    clips.refuse(["--config=x.py", "--config.mode=fake", "--serve"])
    (config := CONFIG.copy_and_resolve_references()).unlock()
    config.run.shard, config.clip = "1/2", "b.mp4"
    for word in ("--config.run.shard=1/2", "--config.clip", "--config.run.output"):
        with pytest.raises(ValueError, match=rf"{word.partition('=')[0]} has no effect here"):
            Clips(FakeMode, config, make).refuse(["--config=x.py", word])
    monkeypatch.syspath_prepend(ROOT / "scripts")
    parse = importlib.import_module("run_parallel").parse
    usual = [f"--video_root={tmp_path}", "--num_gpus=1"]
    with pytest.raises(ValueError, match="--plan has no effect after"):
        parse([*usual, "--", "--config=x.py", "--plan"])
    assert parse([*usual, "--plan", "--", "--config=x.py"]).plan


def test_a_process_of_ours_refuses_them_before_it_makes_anything(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    sample = importlib.import_module("sample").sample
    words = [f"--config={ROOT}/configs/fdm_demo.py:tiny", "--serve"]
    for word in ("--shard=1/2", "--config.data.root=elsewhere"):
        assert main(sample, [*words, word]) == 2
        assert "has no effect here" in capsys.readouterr().err


def test_places_in_the_arguments_are_spelt_right(go):
    for word in ("{outptu}", "--in={videos}", "{video}{out}"):
        with pytest.raises(ValueError, match=r"in the arguments is neither \{video\} nor \{outp"):
            go(arguments=(word,))
    with pytest.raises(ValueError, match=r"\{video\}: a script that is kept"):
        go(arguments=("{video}",), keep=True)
    assert go(arguments=('--json={"a": {}, "b": {0}, {c d}}',)) == 0


def test_hidden_files_and_other_kinds_stay_out_with_a_line(go, tmp_path):
    for name in ("x.webm", "y.GIF", "z.gif", ".x.mp4", "._a.mp4", ".unfinished-1.mp4", "notes.txt"):
        (tmp_path / name).write_text("1")
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "old.mp4").write_text("1")
    videos, left_out = find_videos(tmp_path)
    assert [video.path.name for video in videos] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert left_out == [
        f"left out: {tmp_path}/.trash: hidden",
        "left out: 5 files of other kinds (.gif, .webm, hidden)",
    ]


def test_a_script_that_writes_nothing_is_told(go, tmp_path, capsys):
    assert go("") == 0
    text = capsys.readouterr().out
    assert f"d.mp4: done, 0:00: wrote nothing into {tmp_path}/d\n" in text and "4 done" in text
    assert go() == 0 and "wrote nothing" not in capsys.readouterr().out
    assert go("", arguments=("{video}",)) == 0 and "wrote nothing" not in capsys.readouterr().out


def test_a_script_that_serves_nothing_is_told(go):
    with pytest.raises(ValueError, match=r"first video: it does not call serve\.serve: hi; log"):
        go("print('hi')", keep=True)


def test_a_script_that_refuses_its_arguments_stops_the_run(go, tmp_path, capsys):
    mistyped = "import argparse; argparse.ArgumentParser().parse_args()"
    assert go(mistyped, gpus=1) == 4
    text = capsys.readouterr().out
    assert "stopped: the first 3 attempts ended with exit code 2: script.py: error:" in text
    assert "does the rest" not in text and not (tmp_path / "d").exists()
    assert go("import sys; sys.exit(2 * ('a.mp4' not in sys.argv[2]))", gpus=1) == 3


def test_an_attempt_with_other_arguments_costs_no_result(go, tmp_path, capsys):
    """Unless it touched the files: d.mp4's are written again, with the same size."""
    text = """import pathlib, sys
out = pathlib.Path(sys.argv[-1], "out.txt")
if "--wrong" not in sys.argv or out.parent.name == "d": out.write_text("1")
sys.exit("--wrong" in sys.argv)
"""
    assert go(text) == 0 and go(text, arguments=("--wrong",)) == 3
    assert go(text, arguments=("--wrong",), retry_failed=False) == 3
    assert "0 done, 0 skipped, 0 failed, 4 failed before" in capsys.readouterr().out
    assert go(text) == 0 and "1 done, 3 skipped, 0 failed" in capsys.readouterr().out
    assert "failed" not in (tmp_path / "a" / MARKER).read_text()  # nor does the page say so
    assert go(text, arguments=("--wrong",)) == 3
    (tmp_path / "a" / "out.txt").unlink()
    capsys.readouterr()
    assert go(text) == 0 and "2 done, 2 skipped, 0 failed" in capsys.readouterr().out
