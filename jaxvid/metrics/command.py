"""The command line of scripts/evaluate.py: flags of upstream's scripts over a config file."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict
from rich.progress import track

from jaxvid.core import config as configs
from jaxvid.core.program import Parser
from jaxvid.data.sources import DataConfig, open_source
from jaxvid.metrics.elbo import report_elbo
from jaxvid.metrics.evaluate import EvaluateConfig, evaluate
from jaxvid.metrics.results import compare
from jaxvid.metrics.samples import Samples, find_samples, model_config
from jaxvid.metrics.single import video_fvd
from jaxvid.runs import gallery
from jaxvid.runs.manifest import Manifest

DEFAULT_CONFIG = "configs/evaluate.py"
# Flags that set a field of the config's section `metrics`, and the field.
FLAGS = {
    "eval_dir": "eval_dir",
    "dataset": "dataset",
    "dataset_partition": "partition",
    "modes": "modes",
    "obs_length": "obs_length",
    "n_obs": "obs_length",
    "T": "T",
    "num_samples": "num_samples",
    "batch_size": "batch_size",
}
ComputeElbo = Callable[[str], object]
SECTIONS = {"mode", "metrics", "data", "elbo"}


def main(argv: Sequence[str], compute_elbo: ComputeElbo | None = None) -> int:
    """Runs the command line; raises ValueError for what a user can mend.

    compute_elbo: writes the missing ELBO files of the sampling settings in a config file.
    """
    if not any(word.split("=")[0] == "--config" for word in argv):
        argv = [f"--config={DEFAULT_CONFIG}", *argv]
    config, rest = configs.parse_arguments(argv)
    flags = parser().parse_args(rest)
    if flags.compare:
        print_comparison(flags.compare)
        return 0
    unknown = sorted(set(config) - SECTIONS)
    if unknown:
        raise ValueError(f"config.{unknown[0]} is not a field; known: {', '.join(SECTIONS)}")
    set_flags(config, flags)
    settings = configs.build(EvaluateConfig, config.metrics, "config.metrics")
    if not settings.eval_dir:
        raise ValueError("no evaluation folder: give --eval_dir=FOLDER (it holds samples/)")
    run_modes(settings, config, flags, compute_elbo)
    return 0


def run_modes(
    settings: EvaluateConfig,
    config: ConfigDict,
    flags: argparse.Namespace,
    compute_elbo: ComputeElbo | None,
) -> None:
    """Opens the ground truth when it is needed, and computes what was asked for."""
    data = data_config(settings, config.data)

    def open_truth(samples: Samples):
        frames, size = data.frames or samples.frames, data.size or samples.height
        fitted = dataclasses.replace(data, frames=frames, size=size)
        return open_source(fitted, settings.partition)

    if flags.num_videos is not None:
        score = video_fvd(settings, data.name, flags.num_videos, flags.sample_idx, open_truth)
        print(f"FVD: {score}")
        return
    if settings.metrics:
        path = evaluate(settings, data.name, open_truth, progress)
        print(f"results {path}")
        show(path.parent)
    if "elbo" in settings.modes:
        run_elbo(settings, config.elbo, data.name, compute_elbo)


def show(folder: Path) -> None:
    """Puts the metrics of each sample on the page of the run that made them, if there is one."""
    manifest = Manifest(folder)
    if not (folder / gallery.NAME).exists() or not manifest.path.exists():
        return
    try:
        with manifest.locked():
            print(f"gallery: {gallery.write(manifest)}")
    except ValueError as error:  # a damaged manifest takes nothing from the results
        print(f"gallery: not written, {error}")


def run_elbo(settings: EvaluateConfig, section: ConfigDict, name: str, compute_elbo) -> None:
    """Has missing ELBO files computed if a sampling config is given, then reports all there are."""
    frames = settings.T or find_samples(settings.eval_dir, settings.num_samples).frames
    if section.sampling:
        if compute_elbo is None:
            raise ValueError("config.elbo.sampling: this command cannot compute the ELBO")
        compute_elbo(section.sampling)
    partition = f"{name} {settings.partition}"
    arguments = frames, settings.obs_length, settings.elbo_postfix
    print(f"results {report_elbo(settings.eval_dir, partition, *arguments)}")


def data_config(settings: EvaluateConfig, section: ConfigDict) -> DataConfig:
    """The dataset of the ground truth: that of the flags, else that of model_config.json."""
    stored = model_config(settings.eval_dir)
    name = settings.dataset or stored.get("dataset")
    if not name:
        folder = Path(settings.eval_dir).expanduser()
        raise ValueError(f"{folder}/model_config.json names no dataset: give --dataset=NAME")
    fields = {**dict(section), "name": name}
    return configs.build(DataConfig, fields, "config.data")


def set_flags(config: ConfigDict, flags: argparse.Namespace) -> None:
    """Puts the given flags into the config."""
    for flag, field in FLAGS.items():
        value = getattr(flags, flag)
        if value is not None:
            with config.metrics.ignore_type():
                config.metrics[field] = tuple(value) if flag == "modes" else value


def parser() -> Parser:
    """Flags of video_eval.py and, below, of video_fvd.py."""
    flags = Parser(description=__doc__)
    for name in ("eval_dir", "dataset", "dataset_partition"):
        flags.add_argument(f"--{name}")
    flags.add_argument("--modes", nargs="+", help="psnr ssim lpips fvd, all; rooms, elbo")
    for name in ("obs_length", "n_obs", "T", "num_samples", "batch_size"):
        flags.add_argument(f"--{name}", type=int)
    flags.add_argument("--num_videos", type=int, help="FVD of videos 0..N-1, into fvd-N-K.txt")
    flags.add_argument("--sample_idx", type=int, default=0, help="K of --num_videos")
    flags.add_argument("--device", help="accepted and ignored: JAX chooses")
    flags.add_argument("--compare", nargs="+", metavar="JSON", help="results side by side")
    return flags


def progress(items: Sequence, title: str):
    return track(items, description=title)


def print_comparison(paths: Sequence[str]) -> None:
    """One line per metric and file; refuses files of different protocols."""
    for metric, rows in compare(paths).items():
        for path, summary in rows.items():
            values = ", ".join(f"{name} {value}" for name, value in summary.items())
            print(f"{metric:<6} {path}: {values}")
