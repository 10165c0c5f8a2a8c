"""FDM's command-line flags, both dialects, as overrides of our configs.

The paper's `video_sample.py` and `video_train.py` and those of the refactored code. The tables
below say what becomes of each flag; the functions do what takes more than one of them. A flag that
upstream accepts and then fails on does what its name says, or is refused in one line.
"""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

from jaxvid.core.config import load_config, override
from jaxvid.data.sources import DATASETS
from jaxvid.fdm.flag_words import Flag, Overrides, integer, read_words, say, switch

SAMPLE_CONFIG = "configs/fdm_sample.py"  # where the command line names none
TRAIN_CONFIGS = {  # by dataset, likewise
    "mazes_cwvae": "fdm_mazes",
    "minerl": "fdm_minerl",
    **{name: "fdm_carla" for name in DATASETS if name.startswith("carla")},
}
DEVICE = Flag(note="JAX takes the accelerator it finds; JAX_PLATFORMS=cpu keeps it on the CPU")

SAMPLING = {
    "checkpoint_path": Flag("checkpoint"),
    "inference_mode": Flag("sampling.scheme"),
    "sampling_scheme": Flag("sampling.scheme"),
    "step_size": Flag("sampling.step_size"),
    "max_latent_frames": Flag("sampling.step_size"),
    "obs_length": Flag("sampling.n_obs"),
    "n_obs": Flag("sampling.n_obs"),
    "max_frames": Flag("sampling.max_frames"),
    "T": Flag("data.frames"),
    "num_samples": Flag("sampling.num_samples"),
    "sample_idx": Flag("sampling.sample_idx"),
    "subset_size": Flag("sampling.subset_size"),
    "indices": Flag("sampling.indices", several=True),
    "start_index": Flag(),
    "stop_index": Flag(),
    "batch_size": Flag("sampling.batch_size"),
    "eval_dir": Flag("sampling.eval_dir"),
    "dataset_partition": Flag("sampling.split"),
    "override_dataset": Flag("data.name"),
    "use_ddim": switch("sampling.method", "ddim", "ddpm"),
    "timestep_respacing": Flag("sampling.respacing"),
    "clip_denoised": switch("sampling.clip"),
    "use_gradient_method": switch("sampling.guidance", bare=True),
    "optimality": Flag("sampling.optimality"),
    "just_visualise": switch(bare=True),
    "big_visualise": switch(bare=True),
    "device": DEVICE,
}

INDICATORS = {
    **dict.fromkeys(("channel", "channel-initzero"), "observed+marginal"),
    **dict.fromkeys(("duplicate", "duplicate-initzero", "all"), "duplicate"),
    "t=0": "timestep",
}

NETWORK = {
    "image_size": Flag(note="the network takes the size of the dataset's frames"),
    "num_channels": Flag("network.channels"),
    "num_res_blocks": Flag("network.res_blocks"),
    "num_heads": Flag("network.heads"),
    "num_heads_upsample": Flag("network.heads_up"),
    "attention_resolutions": Flag(),
    "dropout": Flag("network.dropout"),
    "use_checkpoint": switch("network.remat"),
    "use_scale_shift_norm": switch("network.scale_shift_norm"),
    "use_rpe_net": switch("network.positions", "network", "table"),
    "rp_alpha": Flag(),
    "rp_beta": Flag(),
    "rp_gamma": Flag(),
    "class_cond": switch(note="no FDM network knows classes"),
    "use_fp16": switch("network.dtype", "bfloat16", "float32"),
    "fp16_scale_growth": Flag(note="bfloat16 needs no loss scale"),
}

PAPER_NETWORK = {
    "use_spatial_encoding": switch("network.spatial_encoding"),
    "use_frame_encoding": switch("network.frame_encoding"),
    "cross_frame_attention": switch(),
    "do_cond_marg": switch(),
    "enforce_position_invariance": switch("network.centre_frames"),
    "temporal_augment_type": Flag(note="upstream never reads it"),
    "cond_emb_type": Flag("network.indicator", INDICATORS),
    "allow_interactions_between_padding": switch("network.padding_attends"),
}

DIFFUSION = {
    "diffusion_steps": Flag("diffusion.steps"),
    "noise_schedule": Flag("diffusion.schedule"),
    "timestep_respacing": Flag("diffusion.respacing"),
    "use_kl": switch("diffusion.loss", "kl", "mse"),
    "predict_xstart": switch("diffusion.predict", "clean", "noise"),
    "rescale_timesteps": switch("diffusion.rescale_timesteps"),
    "rescale_learned_sigmas": switch(note="the term of a learned variance is always rescaled"),
    "learn_sigma": switch(),
    "sigma_small": switch(),
}

VALIDATION = Flag(note="there is no validation during training; see scripts/evaluate.py")
NO_PICTURES = "training masks are not drawn or saved; leave it out"

TRAINING = {
    **NETWORK,
    **PAPER_NETWORK,
    **DIFFUSION,
    "dataset": Flag("data.name"),
    "T": Flag("data.frames"),
    "schedule_sampler": Flag("train.timestep_sampler"),
    "lr": Flag("train.lr"),
    "weight_decay": Flag("train.weight_decay"),
    "lr_anneal_steps": Flag("train.lr_anneal_steps"),
    "batch_size": Flag("train.batch_size"),
    "microbatch": Flag("train.microbatch"),
    "max_frames": Flag("train.max_frames"),
    "ema_rate": Flag(),
    "log_interval": Flag("train.log_every"),
    "save_interval": Flag("train.save_every"),
    "sample_interval": Flag("train.sample_every"),
    "save_latest_only": switch("train.keep", "1", "1000000"),
    "resume_checkpoint": Flag("run.start_from"),
    "resume_id": Flag(),
    "pad_with_random_frames": switch("train.pad_with_random_frames"),
    "mask_distribution": Flag("train.mask_distribution"),
    "do_inefficient_marg": switch("train.marginal_frames"),
    "num_workers": Flag(note="threads read the data ahead; nothing to set"),
    "n_valid_batches": VALIDATION,
    "n_valid_repeats": VALIDATION,
    "valid_microbatch": VALIDATION,
    "n_interesting_masks": Flag(note="the sample videos have two masks, as in the refactored code"),
    "just_visualise": switch(bare=True),
    "just_save_masks": Flag(),
    "fake_seed": Flag(note="it has no effect upstream; the seed is --config.train.seed"),
    "unobserve": switch(bare=True, note="logs stay in run.output, as log.csv and tensorboard/"),
}

SLURM = Flag(note="for sbatch; give it there")
SEARCH = {
    "num_timesteps": Flag(),
    "subset_size": Flag(),
    "step": Flag(),
    "submit": switch(bare=True),
    "slurm_max_array": Flag(),
    "slurm_min_array": Flag(),
    "slurm_cluster": SLURM,
    "slurm_time_hrs": SLURM,
    "slurm_mem": SLURM,
}


def search_flags(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Values of the flags that only `video_optimal_schedule.py` has, and the other words.

    The other words are for sampling_overrides, without the environment: a task of a SLURM array
    searches one call of the scheme.
    """
    words = read_words(argv, SEARCH)
    overrides = Overrides(words)
    overrides.translate(SEARCH)
    return words.flags, overrides.argv(words.config or SAMPLE_CONFIG)


def sampling_overrides(argv: list[str], environ: Mapping[str, str] = os.environ) -> list[str]:
    """The command line of `video_sample.py` as one of scripts/sample.py.

    Words that are no flags of upstream's stay as they are.

    Raises:
      ValueError: flags that contradict each other, or ask for what there is not.
    """
    words = read_words(argv, SAMPLING)
    flags = words.flags
    if not flags:
        return list(argv)
    if flags.get("dataset_partition") == "variable_length":
        raise ValueError(
            "--dataset_partition=variable_length: videos of different lengths are not sampled in "
            "one run; use test with --T, once for each length"
        )
    overrides = Overrides(words)
    overrides.translate(SAMPLING)
    if "override_dataset" in flags:
        overrides.set("sampling.name_dataset", "True", "--override_dataset")
    _choose_videos(flags, overrides, environ)
    _choose_picture(flags, overrides)
    config = words.config or SAMPLE_CONFIG
    if "inference_mode" in flags and "hierarchy" not in flags["inference_mode"]:
        if not _configured(config, words).sampling.step_size and overrides.set_unless_given(
            "sampling.step_size", "1", "--inference_mode"
        ):
            say("--inference_mode", "--step_size is 1, its default in the paper's script")
    return overrides.argv(config)


def _configured(file: str, words) -> ConfigDict:
    """The config of the command line, without upstream's flags."""
    config = load_config(file)
    override(config, [f"{field}={value}" for field, value in words.fields.items()])
    return config


def _choose_videos(flags: Mapping[str, str], overrides: Overrides, environ) -> None:
    """Ranges of indices, and one batch for each task of a SLURM array."""
    start = integer("start_index", flags.get("start_index", "0"))
    if "subset_size" in flags and (chosen := {"indices", "stop_index"} & set(flags)):
        raise ValueError(f"--subset_size and --{min(chosen)} both choose the videos; keep one")
    if "stop_index" in flags:
        stop = integer("stop_index", flags["stop_index"])
        if not 0 <= start < stop:
            raise ValueError(f"--start_index={start} --stop_index={stop} name no video")
        overrides.set("sampling.indices", str(tuple(range(start, stop))), "--stop_index")
    elif start:
        raise ValueError(f"--start_index={start} needs --stop_index (upstream ignores it alone)")
    task, given = environ.get("SLURM_ARRAY_TASK_ID"), set(flags) | set(overrides.words.fields)
    if given & {"subset_size", "sampling.subset_size", "run.shard"}:
        return
    if task and given & {"checkpoint_path", "inference_mode", "sampling_scheme"}:
        overrides.set("run.shard", "0/1", "SLURM_ARRAY_TASK_ID")
    if given & {"indices", "stop_index", "sampling.indices", "sampling.batch"}:
        return
    if task and "run.shard" in overrides.found:
        overrides.set("sampling.batch", task, "SLURM_ARRAY_TASK_ID")
        say(f"SLURM_ARRAY_TASK_ID={task}", f"the videos of batch {task} only")
    elif "sampling_scheme" in flags:
        overrides.set("sampling.batch", "0", "--sampling_scheme")
        say(
            "--sampling_scheme",
            "only the first batch of videos without --stop_index, as upstream; "
            "--config.sampling.batch=-1 samples all",
        )


def _choose_picture(flags: Mapping[str, str], overrides: Overrides) -> None:
    """The style of --just_visualise."""
    big = flags.get("big_visualise") == "True"
    if flags.get("just_visualise") == "True":
        style = "big" if big else "small"
        style = "refactored" if "sampling_scheme" in flags else style
        overrides.set("sampling.visualise", style, "--just_visualise")
    elif big:
        say("--big_visualise", "nothing without --just_visualise")


def training_overrides(argv: list[str], environ: Mapping[str, str] = os.environ) -> list[str]:
    """The command line of `video_train.py` as one of scripts/train.py; see sampling_overrides."""
    words = read_words(argv, TRAINING)
    flags = words.flags
    if not flags:
        return list(argv)
    for name in ("just_visualise", "just_save_masks"):
        if flags.get(name, "0") not in ("False", "0"):
            raise ValueError(f"--{name}: {NO_PICTURES}")
    for name in ("cross_frame_attention", "do_cond_marg"):
        if flags.get(name) == "False":
            raise ValueError(f"--{name}=False fails upstream, and there is no such network here")
    file = words.config or _training_config(flags)
    config = _configured(file, words)
    overrides = Overrides(words)
    flags = words.flags = {name: text for name, text in flags.items() if _is_set(name, text)}
    overrides.translate(TRAINING)
    _size(flags, config, overrides)
    _positions(flags, config, overrides)
    _variance(flags, config, overrides)
    if "do_cond_marg" in flags:
        overrides.set_unless_given("network.indicator", "observed+marginal", "--do_cond_marg")
    if integer("lr_anneal_steps", flags.get("lr_anneal_steps", "0")):
        overrides.set_unless_given("train.steps", flags["lr_anneal_steps"], "--lr_anneal_steps")
    if "ema_rate" in flags:
        overrides.set("train.ema_rates", f"({flags['ema_rate']},)", "--ema_rate")
    _run_folder(flags, config, overrides, environ)
    return overrides.argv(file)


def _is_set(name: str, text: str) -> bool:
    """Whether upstream takes the value for one: its defaults are empty or -1."""
    return text != "" and not (name == "T" and text == "-1")


def _training_config(flags: Mapping[str, str]) -> str:
    """The config of the dataset; flags that only the paper's network has choose its variant."""
    name = TRAIN_CONFIGS.get(flags.get("dataset", ""))
    paper = ":paper" * (not PAPER_NETWORK.keys().isdisjoint(flags))
    file = f"configs/{name}.py{paper}" if name else "configs/fdm_demo_train.py"
    say("no --config", f"what no flag sets is as in {file}")
    return file


def _dataset(flags, config):
    name = flags.get("dataset", config.data.name)
    if name not in DATASETS:
        raise ValueError(f"--dataset={name} is unknown; known: {', '.join(DATASETS)}")
    return DATASETS[name]


def _size(flags, config, overrides: Overrides) -> None:
    """The frames' size, and the levels with attention, which upstream names by their size."""
    if not {"dataset", "attention_resolutions"} & set(flags):
        return
    old = config.network.image_size
    size = config.data.size or _dataset(flags, config).size
    text = flags.get("attention_resolutions")
    resolutions = [old // factor for factor in config.network.attention_at]
    if text is not None:
        resolutions = [integer("attention_resolutions", part) for part in text.split(",") if part]
    factors = tuple(size // r for r in resolutions if 0 < r <= size)
    overrides.set("network.image_size", str(size), "--dataset")
    overrides.set("network.attention_at", str(factors), "--attention_resolutions")


def _positions(flags, config, overrides: Overrides) -> None:
    """Lengths of the position table and of the frame encoding; both default to T."""
    frames = flags.get("T") or config.data.frames or _dataset(flags, config).frames
    names = [f"rp_{greek}" for greek in ("alpha", "beta", "gamma")]
    given = [flags[name] for name in names if name in flags]
    if given and len(given) < 3:
        raise ValueError("--rp_alpha, --rp_beta and --rp_gamma belong together; give all three")
    if given or flags.get("use_rpe_net") == "False":
        if not given and frames is None:
            raise ValueError("--use_rpe_net=False needs --T, the length of the training videos")
        values = [integer(name, text) for name, text in zip(names, given, strict=False)]
        buckets = tuple(values) or (int(frames),) * 3
        if not 0 < buckets[0] <= buckets[1]:
            raise ValueError(f"--rp_alpha={buckets[0]} must be from 1 to --rp_beta={buckets[1]}")
        overrides.set("network.buckets", str(buckets), "--rp_alpha")
    if flags.get("use_frame_encoding") == "True" and frames is not None:
        overrides.set_unless_given("network.train_frames", str(frames), "--use_frame_encoding")


def _variance(flags, config, overrides: Overrides) -> None:
    if not {"learn_sigma", "sigma_small"} & set(flags):
        return
    learned, now = flags.get("learn_sigma") == "True", config.diffusion.variance
    small = flags.get("sigma_small", str(now == "fixed_small")) == "True"
    fixed = "fixed_small" if small else "fixed_large"
    if "learn_sigma" not in flags:
        learned = now == "learned_range"
    overrides.set("diffusion.variance", "learned_range" if learned else fixed, "--learn_sigma")
    overrides.set("network.out_channels", "6" if learned else "3", "--learn_sigma")


def _run_folder(flags, config, overrides: Overrides, environ) -> None:
    """`checkpoints/<id>`; a folder that holds upstream's files only is gone on from."""
    root = Path(environ.get("DIFFUSION_BLOB_LOGDIR") or "checkpoints")
    if "resume_id" in flags:
        folder = root / flags["resume_id"]
        overrides.set("run.output", str(folder), "--resume_id")
        newest = newest_upstream(folder)
        if newest and not (folder / "checkpoints").exists():
            if overrides.set_unless_given("run.start_from", str(newest), "--resume_id"):
                say("--resume_id", f"going on from {newest}")
    elif not config.run.output:
        name = flags.get("dataset", config.data.name)
        stamp = environ.get("SLURM_JOB_ID") or time.strftime("%Y%m%d-%H%M%S")
        folder = root / f"{name}-{stamp}"
        overrides.set("run.output", str(folder), "--resume_id")
        say("no --resume_id", f"the run is {folder}; continue it with --resume_id={folder.name}")


def newest_upstream(folder: Path) -> Path | None:
    """The model file that upstream would resume from: `model_latest.pt` or the largest number."""
    found = {}
    for file in folder.glob("model*.pt"):
        if match := re.fullmatch(r"model_?(\d+|latest)\.pt", file.name):
            found[file] = float("inf") if match[1] == "latest" else int(match[1])
    return max(found, key=found.get, default=None)
