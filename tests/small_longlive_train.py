"""LongLive's training runs with the tiny configs, their settings and logs."""

import csv
from pathlib import Path

import jax

from jaxvid.core.config import load_config, override
from jaxvid.longlive.train_run import LongLiveTraining
from jaxvid.longlive.train_setup import training_setup
from jaxvid.runs import training

ROOT = Path(__file__).parents[1]


def config_of(stage: str, folder, *assignments):
    config = load_config(f"configs/longlive_train.py:tiny_{stage}")
    override(config, [f"run.output={folder}", *assignments])
    return config


def system_of(stage: str, folder, *assignments) -> LongLiveTraining:
    return LongLiveTraining(training_setup(config_of(stage, folder, *assignments)))


def run(system, devices: int = 1):
    return training.run(system, jax.devices()[:devices])


def log(folder) -> list[dict]:
    return list(csv.DictReader((Path(folder) / "log.csv").open()))


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)
