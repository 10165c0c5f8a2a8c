"""Evaluates a folder of samples: `scripts/video_eval.py` of FDM, with its file names."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax
import numpy as np

import jaxvid
from jaxvid.metrics import fvd, images, lpips, plots, report, rooms, weights
from jaxvid.metrics.measure import (
    Settings,
    Truth,
    frame_metrics,
    fvd_scores,
    room_scores,
    truth_clip,
)
from jaxvid.metrics.pixels import check_rule
from jaxvid.metrics.protocol import describe
from jaxvid.metrics.results import (
    UNKNOWN,
    check_same_protocol,
    merge_pickle,
    read_pickle,
    read_protocol,
    write_json,
    write_sample_means,
)
from jaxvid.metrics.samples import Samples, find_samples
from jaxvid.metrics.summary import HIGHER_IS_BETTER, curves, summarise

ALL = ("ssim", "psnr", "lpips", "fvd")  # what "all" stands for
MODES = (*ALL, "rooms")  # rooms: GQN-Mazes only
# Upstream's number of videos per call of I3D, by part of the dataset's name. The result does
# not depend on it; on a CPU, where it gains nothing, one video needs the least memory.
FVD_BATCH = {"mazes": 16, "minerl": 8, "carla": 4}


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate and how; the flags of the command line override it."""

    eval_dir: str = ""
    dataset: str = ""  # "" = the one named in model_config.json
    partition: str = "test"
    modes: tuple[str, ...] = ("all",)  # of MODES, "all", "elbo"
    obs_length: int = 36  # observed frames: left out by all but fvd
    T: int | None = None  # frames; None = length of the samples
    num_samples: int | None = None  # per video; None = as many as the first video has
    batch_size: int | None = None  # videos per call of I3D; None = by dataset, 1 on CPUs
    pixels: str = "paper"
    ssim_data_range: float = images.PUBLISHED_SSIM_RANGE
    lpips_net: str = "alex"
    lpips_weights: str = ""  # folder; "" = checkpoints/lpips_<net>
    i3d_weights: str = "checkpoints/i3d"
    fvd_window: int = fvd.WINDOW
    elbo_postfix: str = ""  # "_ddim", "_respace<string>": which ELBO files
    plots: bool = True

    def __post_init__(self):
        unknown = sorted(set(self.modes) - {*MODES, "all", "elbo"})
        if unknown:
            raise ValueError(f"mode {unknown[0]!r} is unknown: use {', '.join(MODES)}, all or elbo")
        if self.partition not in ("train", "test"):
            raise ValueError(f"dataset_partition={self.partition!r}: use train or test")
        if self.lpips_net not in lpips.STAGES:
            raise ValueError(f"lpips_net={self.lpips_net!r}: use {' or '.join(lpips.STAGES)}")
        for name in ("T", "num_samples", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be 1 or more")
        if self.obs_length < 0:
            raise ValueError(f"obs_length={self.obs_length} must not be negative")
        check_rule(self.pixels)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The modes to run, "all" spelled out, without the ELBO."""
        return tuple(m for m in MODES if m in self.modes or ("all" in self.modes and m in ALL))

    def settings(self, dataset: str) -> Settings:
        guess = next((size for part, size in FVD_BATCH.items() if part in dataset), 4)
        guess = 1 if jax.default_backend() == "cpu" else guess
        return Settings(
            observed=self.obs_length,
            ssim_data_range=self.ssim_data_range,
            pixels=self.pixels,
            lpips_net=self.lpips_net,
            batch_size=self.batch_size or guess,
            fvd_window=self.fvd_window,
        )


def evaluate(
    config: EvaluateConfig,
    dataset: str,
    open_truth: Callable[[Samples], Truth],
    track: Callable[[Sequence, str], Iterable] = lambda items, title: items,
) -> Path:
    """Computes the metrics that are not in the folder's results yet and writes them.

    Writes `metrics_<videos>-<samples>-<T>.pkl`, the same name `.json` with the protocols, a plot
    per metric, and `metrics.json` with the means of each sample; prints the table. Each finished
    metric is stored at once.

    Args:
      config: what to evaluate.
      dataset: its name, for the batch size, the protocol and the published figures.
      open_truth: opens the ground truth that fits the samples.
      track: shows progress over the items it passes through.
    Returns:
      The path of the JSON.
    Raises:
      ValueError: bad input, missing weights, or earlier results of another protocol; all
        before anything is computed.
    """
    samples = find_samples(config.eval_dir, config.num_samples, config.T)
    check_lengths(config, samples)
    path = samples.folder / f"{samples.name}.pkl"
    stored = read_pickle(path)
    missing = [metric for metric in config.metrics if metric not in stored]
    networks = load_networks(config, missing)
    name = f"{dataset} {config.partition}"
    settings = config.settings(dataset)
    protocol = protocols(path, samples, name, settings, {*stored, *missing}, networks)
    if missing:
        truth = open_truth(samples)
        for video in (samples.videos[0], samples.videos[-1]):
            truth_clip(samples, truth, video)
    for metrics in groups(missing):
        params = networks.get(metrics[0], (None, None))[0]
        stored = merge_pickle(path, computed(metrics, samples, truth, settings, params, track))
        write_results(path.with_suffix(".json"), stored, protocol, dataset)
    if not missing:
        print(f"{path} has {', '.join(config.metrics)} already")
        write_results(path.with_suffix(".json"), stored, protocol, dataset)
    write_sample_means(samples, stored)
    if config.plots:
        draw(stored, config.obs_length, path.with_suffix(""))
    print(report.table(summarise(stored), dataset, {m: protocol[m] for m in stored}))
    return path.with_suffix(".json")


def computed(
    metrics: list[str], samples: Samples, truth: Truth, settings: Settings, params, track: Callable
) -> dict:
    """The results of a group of metrics, see `groups`; params: those of its network, or None."""
    if metrics == ["fvd"]:
        return {"fvd": fvd_scores(samples, truth, params, settings, track)}
    if metrics == ["rooms"]:
        return {"rooms": room_scores(samples, truth, settings, track)}
    return frame_metrics(samples, truth, metrics, settings, params, track)


def groups(metrics: list[str]) -> list[list[str]]:
    """Metrics to compute in one pass each: psnr and ssim together, the others alone."""
    cheap = [metric for metric in metrics if metric in ("ssim", "psnr")]
    return [group for group in (cheap, *([m] for m in metrics if m not in cheap)) if group]


def check_lengths(config: EvaluateConfig, samples: Samples) -> None:
    """Raises ValueError if the frames do not suffice for the metrics asked for."""
    if set(config.metrics) - {"fvd"} and samples.frames <= config.obs_length:
        raise ValueError(
            f"obs_length={config.obs_length} leaves none of the {samples.frames} frames to compare"
        )
    if "fvd" in config.metrics:
        fvd.check_clip(samples.frames, config.fvd_window)
        if len(samples.files) < 2:
            raise ValueError("fvd compares sets of videos: sample 2 or more videos (100 is usual)")
    if "lpips" in config.metrics:
        lpips.check_size((0, samples.height, samples.width, 3), config.lpips_net)
    if "rooms" in config.metrics:
        rooms.check_size(samples.height, samples.width)


def load_networks(config: EvaluateConfig, metrics: Sequence[str]) -> dict[str, tuple[dict, str]]:
    """(parameters, hash) of the networks that these metrics need."""
    networks = {}
    if "lpips" in metrics:
        model = f"lpips_{config.lpips_net}"
        folder = config.lpips_weights or f"checkpoints/{model}"
        networks["lpips"] = weights.load(folder, model)
    if "fvd" in metrics:
        networks["fvd"] = weights.load(config.i3d_weights, "i3d")
    return networks


def protocols(
    path: Path,
    samples: Samples,
    dataset: str,
    settings: Settings,
    metrics: Iterable[str],
    networks: dict[str, tuple[dict, str]],
) -> dict[str, dict]:
    """The protocol of each metric, stored or still to compute.

    Raises:
      ValueError: what is stored beside `path` was measured differently.
    """
    earlier = read_protocol(path.with_suffix(".json"))
    found = {}
    for metric in metrics:
        if metric in networks:
            digest = networks[metric][1]
        else:  # a stored metric keeps the hash of the weights that made it
            digest = earlier.get(metric, {}).get("weights")
        if metric in MODES:
            found[metric] = describe(metric, samples, dataset, settings, digest)
    check_same_protocol(found, earlier, f"{path} (move it away to measure anew)")
    stored = read_pickle(path)
    return {m: UNKNOWN if m in stored and m not in earlier else found[m] for m in sorted(found)}


def write_results(path: Path, results: dict[str, np.ndarray], protocol: dict, dataset: str) -> None:
    """Writes the JSON: protocols, summary, curves over frames, published figures."""
    known = {metric: values for metric, values in results.items() if metric in MODES}
    summary = summarise(known)
    content = {
        "code": f"jaxvid {jaxvid.__version__}",
        "protocol": {metric: protocol[metric] for metric in known},
        "summary": summary,
        "published": report.published_beside(summary, dataset),
        "fvd": known.get("fvd"),
        "curves": {m: curves(known[m], m) for m in known if m in HIGHER_IS_BETTER},
    }
    if "fvd" in known:
        content["note"] = weights.I3D_PROVENANCE
    write_json(path, content)


def draw(results: dict[str, np.ndarray], observed: int, stem: Path) -> None:
    """Plots the per-frame metrics, or says why not."""
    if not plots.available():
        print("no plots: install matplotlib (pip install 'jaxvid[plots]') or set plots=False")
        return
    for path in plots.plot_all(results, observed, stem):
        print(f"plot {path}")
