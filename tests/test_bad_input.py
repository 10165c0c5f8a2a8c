"""Mistakes of a user end in one line and exit code 2 before any weights are read."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import script

from jaxvid.core import files, program
from jaxvid.core.config import load_config
from jaxvid.data import sources
from jaxvid.fdm import keys, sample
from jaxvid.fdm.train import TrainConfig
from jaxvid.metrics import command, single
from jaxvid.runs.training_guard import sole_user

ROOT = Path(__file__).parents[1]


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Calls a script with arguments that it has to refuse; gives its line on stderr."""
    monkeypatch.chdir(ROOT)

    def never(*args, **kwargs):
        raise AssertionError("weights were read")

    monkeypatch.setattr(sample, "load", never)

    def call(name, *argv):
        module = script.load(name)
        entry = module.main if name == "convert" else getattr(module, name)
        monkeypatch.setattr(sys, "argv", [name, *map(str, argv)])
        assert program.main(entry) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        return line

    return call


@pytest.mark.parametrize(
    "text, message",
    [
        ("def get_config(:\n", "line 1: SyntaxError"),
        ("\n\nimport no_such_module\n", "line 3: ModuleNotFoundError"),
        ("def get_config():\n    return 1 / 0\n", "line 2: ZeroDivisionError"),
        ("def get_config(a, b):\n    return a\n", "TypeError: get_config"),
        ("get_config = 3\n", "has no function get_config"),
        ("def get_config():\n    return {}\n", "gives dict"),
        ("def get_config():\n    pass\n", "gives NoneType"),
        ("\0", "SyntaxError"),
    ],
)
def test_broken_config_file(tmp_path, text, message):
    path = tmp_path / "config.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_config(str(path))
    assert f"--config={path}" in str(caught.value)


def test_config_file_of_another_kind(tmp_path):
    path = tmp_path / "config.txt"
    path.write_text("x = 1")
    with pytest.raises(ValueError, match=r"does not end in \.py"):
        load_config(str(path))


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("sampling.sample_idx", -7, "sample_idx=-7 is negative; -1 stands for all"),
        ("sampling.batch", -2, "batch=-2"),
        ("sampling.batch_size", 10**12, "use at most 100000"),
        ("sampling.num_samples", 10**12, "use at most 100000"),
        ("sampling.video_size", -3, "video_size=-3 is negative"),
        ("sampling.video_size", 10**8, "use at most 4096"),
        ("sampling.eta", -1, "eta=-1.0 is not from 0"),
        ("sampling.eta", "1e400", "eta=inf is not a finite number"),
        ("data.frames", 10**8, "T=100000000 is too large; use at most 100000"),
        ("data.test_videos", 0, "has no test videos"),
        ("data.looks", -2, "looks=-2 is negative"),
        ("data.seed", -1, "seed=-1 is negative"),
        ("run.output", "README.md", "is, or lies under, a file"),
        ("run.output", "README.md/sub", "is, or lies under, a file"),
    ],
)
@pytest.mark.parametrize("plan", [["--plan"], []])
def test_sampling(refusal, tmp_path, field, value, message, plan):
    output = f"--config.run.output={tmp_path / 'out'}"
    words = ["--config=configs/fdm_demo.py:mazes", output, f"--config.{field}={value}", *plan]
    assert message in refusal("sample", *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "note, message",
    [
        ("[]", "holds no settings"),
        ('{"kind": "fdm"}', "lacks network, diffusion, arguments, step"),
        ('{"kind": "other"}', "holds a checkpoint of other"),
        ("{bad", "not valid JSON"),
        (None, "not a complete checkpoint"),
    ],
)
def test_checkpoint_with_a_wrong_note(refusal, tmp_path, note, message):
    if note is not None:
        (tmp_path / "jaxvid.json").write_text(note)
    words = ["--config=configs/fdm_demo.py:mazes", f"--config.checkpoint={tmp_path}"]
    assert message in refusal("sample", *words)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("run.output", "README.md/sub", "is, or lies under, a file"),
        ("run.stop_after", -1, "stop_after=-1.0 is negative"),
        ("run.start_from", "data/fdm_demo", "holds another network"),
        ("train.lr", "1e400", "lr=inf is not a finite number"),
        ("train.ema_rates", "(0.9,0.9)", "names a rate twice"),
        ("train.seed", -1, "train.seed=-1 is no seed: use a whole number from 0 to 4294967295"),
        ("train.sample_every", -1, "sample_every=-1 is negative"),
        ("train.lr_anneal_steps", -3, "lr_anneal_steps=-3 is negative"),
    ],
)
def test_training(refusal, tmp_path, field, value, message):
    output = f"--config.run.output={tmp_path / 'out'}"
    words = ["--config=configs/fdm_mazes.py:tiny", "--config.train.batch_size=8"]  # 8 devices
    assert message in refusal("train", *words, output, f"--config.{field}={value}")
    assert not (tmp_path / "out").exists()


def test_what_is_just_within_the_limits():
    sources.DataConfig(looks=0, seed=0)
    TrainConfig(sample_every=0, lr_anneal_steps=0, ema_rates=(0.9, 0.99))


def test_two_trainings_in_one_folder(refusal, tmp_path):
    words = ["--config=configs/fdm_mazes.py:tiny", "--config.train.batch_size=8"]
    with sole_user(tmp_path / "out"):
        line = refusal("train", *words, f"--config.run.output={tmp_path / 'out'}")
    assert "another process trains into run.output=" in line
    assert not (tmp_path / "out").exists()


def test_read_only_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args: False)  # root may write anywhere
    with pytest.raises(ValueError, match="is read-only"):
        files.check_writable(tmp_path / "a/b", "output")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("words", [(), ("--model=foo", "--source=x", "--output=y"), ("--foo",)])
def test_conversion_flags(refusal, words):
    refusal("convert", *words)


def test_conversion_of_a_damaged_checkpoint(refusal, tmp_path):
    shutil.copytree(ROOT / "data/fdm_demo", tmp_path / "model")
    (tmp_path / "model/jaxvid.json").write_text("[]")
    words = ["--model=fdm", f"--source={tmp_path / 'model'}", f"--output={tmp_path / 'a.pt'}"]
    assert "is damaged" in refusal("convert", *words, "--reverse")
    with pytest.raises(ValueError, match="lack network, arguments, step"):
        keys.revert({}, {"kind": "fdm"})


def test_evaluation(tmp_path, capsys):
    (tmp_path / "samples").mkdir()
    (tmp_path / "model_config.json").write_text(json.dumps({"dataset": "maze_walk"}))
    with pytest.raises(ValueError, match="num_videos=-1 must be 1 or more"):
        single.one_sample(tmp_path, -1, 0, None)
    config = f"--config={ROOT / 'configs/evaluate.py'}"
    assert program.main(command.main, [config, f"--eval_dir={tmp_path}", "--modes", "psnr"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
