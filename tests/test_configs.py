"""The configs that ship: they build, their commands work, and mistakes end in one line."""

import dataclasses
import importlib.util
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import script
from ml_collections import ConfigDict

from jaxvid.core.config import build, load_config, override, parse_arguments
from jaxvid.core.mesh import MeshConfig
from jaxvid.cosmos import setup as cosmos_setup
from jaxvid.data.sources import DataConfig
from jaxvid.fdm import training_settings
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.sample_config import SampleConfig
from jaxvid.fdm.setup import training_setup
from jaxvid.fdm.train import TrainConfig
from jaxvid.fdm.unet import UNetConfig
from jaxvid.longlive import setup as longlive_setup
from jaxvid.metrics.evaluate import EvaluateConfig
from jaxvid.runs import config as runs
from jaxvid.runs import training_settings as runs_training
from jaxvid.wan.dit import WanConfig

ROOT = Path(__file__).parents[1]
FILES = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
SHARED = {"data": DataConfig, "mesh": MeshConfig}
TRAINING = SHARED | {
    "network": UNetConfig,
    "diffusion": DiffusionConfig,
    "train": TrainConfig,
    "run": runs_training.RunConfig,
}
SAMPLING = SHARED | {"sampling": SampleConfig, "run": runs.RunConfig}
TRAINED = ("mazes", "minerl", "carla")


def module(file: str):
    spec = importlib.util.spec_from_file_location(f"shipped_{file[:-3]}", ROOT / "configs" / file)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def load(file: str, variant: str = ""):
    return load_config(f"{ROOT / 'configs' / file}{':' * bool(variant)}{variant}")


ALL = [(file, v) for file in FILES for v in ("", *getattr(module(file), "VARIANTS", ()))]
FDM = [(file, v) for file, v in ALL if load(file, v).mode == "fdm"]


@pytest.mark.parametrize(("file", "variant"), FDM)
def test_every_field_is_there_and_builds(file, variant):
    config = load(file, variant)
    kinds = TRAINING if "train" in config else SAMPLING
    others = set() if kinds is TRAINING else {"checkpoint", "network_dtype"}
    assert set(config) == {"mode", *kinds, *others}
    for name, cls in kinds.items():
        fields = {field.name for field in dataclasses.fields(cls)}
        assert set(config[name]) == fields, name
        section = dict(config[name])
        if name == "run":
            section["output"] = section["output"] or "outputs/somewhere"
        if name == "data":
            section["name"] = section["name"] or "mazes_cwvae"  # "": from the checkpoint
        build(cls, section, name)


def test_the_evaluation_config_builds():
    config = load("evaluate.py")
    build(EvaluateConfig, config.metrics)
    assert set(config.metrics) == {field.name for field in dataclasses.fields(EvaluateConfig)}
    build(DataConfig, config.data)


@pytest.mark.parametrize("file", [file for file in FILES if hasattr(module(file), "VARIANTS")])
def test_an_unknown_variant_is_named_with_those_that_exist(file):
    with pytest.raises(ValueError, match=r"no variant 'huge'; known: .*tiny"):
        load(file, "huge")


def commands(text: str) -> list[list[str]]:
    """The words of the command lines of a docstring."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.startswith("python ")]


@pytest.mark.parametrize("file", FILES)
def test_the_docstring_has_commands_that_parse(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = commands(module(file).__doc__)
    assert any(f"--config=configs/{file}" in words for words in found)
    for words in found:
        if words[1] == "-m":
            assert importlib.util.find_spec(words[2])
            continue
        assert Path(words[1]).is_file()
        parse_arguments(words[2:])  # config, variant and fields exist


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("variant", ["", "paper"])
def test_the_training_configs_are_the_published_settings(name, variant):
    config = load(f"fdm_{name}.py", variant)
    config.run.output = "checkpoints/somewhere"
    setup = training_setup(config)
    arguments = training_settings.upstream_arguments(setup)
    size = 128 if name == "carla" else 64
    assert arguments.items() >= {
        "image_size": size, "num_channels": 128, "num_res_blocks": 1, "num_heads": 4,
        "diffusion_steps": 1000, "noise_schedule": "linear", "batch_size": 8, "max_frames": 20,
        "lr": 1e-4, "ema_rate": "0.9999", "use_rpe_net": True, "predict_xstart": False,
        "learn_sigma": False, "sigma_small": False, "use_kl": False, "lr_anneal_steps": 0,
    }.items()  # fmt: skip
    assert sorted(arguments["attention_resolutions"].split(",")) == ["16", "8"]
    assert setup.network.in_channels == (5 if variant == "paper" else 4)


@pytest.mark.parametrize("file", [file for file, v in FDM if v == "tiny" and "train" in load(file)])
def test_the_tiny_sampling_variant_fits_the_tiny_models(file):
    model, sampling = load(file, "tiny"), load("fdm_sample.py", "tiny")
    assert model.data.name == "maze_walk"
    for field in ("size", "frames", "test_videos"):
        assert model.data[field] == sampling.data[field]
    assert model.network.image_size == sampling.data.size


def test_a_config_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match=r"^--config=no.py: there is no file no.py"):
        load_config("no.py")


@pytest.mark.parametrize("text", ["{[]:1}", "-" * 20_000 + "1"])
def test_values_that_are_no_literals(text):
    with pytest.raises(ValueError, match=r"^config.a=.* is str, not int$"):
        override(ConfigDict({"a": 1}), [f"a={text}"])


def test_tuples_of_a_fixed_length():
    assert build(WanConfig, {"patch": [1, 2, 2]}).patch == (1, 2, 2)
    for wrong in ((1, 2), (1, 2, 2, 2), ()):
        with pytest.raises(ValueError, match=rf"has {len(wrong)} entries, it takes 3$"):
            build(WanConfig, {"patch": wrong}, "models")


def test_mistakes_in_a_config_of_ones_own():
    config = load("fdm_demo_train.py", "tiny")
    config.trian = {"steps": 3}
    with pytest.raises(ValueError, match=r"^config.trian is not a section; known: mode, network"):
        training_setup(config)
    config = load("fdm_demo_train.py", "tiny")
    config.run.output = "checkpoints/somewhere"
    with config.train.ignore_type():
        config.train.lr = "fast"
    with pytest.raises(ValueError, match=r"^config.train.lr='fast' is str, not float$"):
        training_setup(config)


SCRIPTS = {"sample.py": "configs/fdm_demo.py", "train.py": "configs/fdm_demo_train.py"}
MISTAKES = {
    "a field that does not exist": (["--config.data.frame=3"], "config.data.frame is not a field"),
    "a value of another type": (["--config.data.frames=many"], "config.data.frames='many'"),
    "a section that does not exist": (
        ["--config.dta.frames=3"],
        "config.dta.frames is not a field",
    ),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_mistake_ends_in_one_line_and_exit_code_2(script):
    first = [sys.executable, f"scripts/{script}", f"--config={SCRIPTS[script]}"]
    started = [
        subprocess.Popen([*first, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for words, _ in MISTAKES.values()
    ]
    for (_, message), process in zip(MISTAKES.values(), started, strict=True):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 2, errors
        assert len(errors.splitlines()) == 1, errors
        assert message in errors


@pytest.mark.parametrize("name", ["longlive", "cosmos_multiview"])
def test_drawn_networks_take_no_file(name, tmp_path):
    """Nothing would read it."""
    config = load_config(str(ROOT / f"configs/{name}.py") + ":tiny")
    config.models.transformer = str(tmp_path)
    modes = {"longlive": longlive_setup, "cosmos_multiview": cosmos_setup}
    with pytest.raises(ValueError, match=r"models.random=True reads no files, models.transformer="):
        modes[name].sampling_settings(config)


@pytest.mark.parametrize("name", ["benchmark", "ode_pairs", "plan"])
def test_help_needs_no_config(name, capsys, at_root):
    run = getattr(script.load(name), "pairs" if name == "ode_pairs" else name)
    with pytest.raises(SystemExit, match=r"^0$"):
        run(["--help"])
    assert "--output" in capsys.readouterr().out
    words = ["--config=configs/longlive.py:tiny", "--output=out", "--stpes=3"]
    with pytest.raises(ValueError, match=r"^unknown argument --stpes=3; --help lists the flags$"):
        run(words)
