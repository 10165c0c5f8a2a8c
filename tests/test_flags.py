"""Command lines of FDM's scripts, both dialects, read as ours."""

import re
from pathlib import Path

import pytest

from jaxvid.core.config import build, parse_arguments
from jaxvid.fdm.flags import SAMPLING, TRAINING, sampling_overrides, training_overrides
from jaxvid.fdm.sample_config import SampleConfig
from jaxvid.fdm.setup import training_setup

SAMPLE = "configs/fdm_sample.py"
MAZES = "configs/fdm_mazes.py"


@pytest.fixture(autouse=True)
def in_repository(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID", "DIFFUSION_BLOB_LOGDIR"):
        monkeypatch.delenv(name, raising=False)


def value(config, field: str):
    for part in field.split("."):
        config = config[part]
    return config


def sampling(line: str, environ=()):
    config, rest = parse_arguments(sampling_overrides(line.split(), dict(environ)))
    assert rest == []
    build(SampleConfig, config.sampling, "config.sampling")
    return config


def training(line: str, file: str = MAZES, environ=()):
    words = training_overrides([f"--config={file}", *line.split()], dict(environ))
    config, rest = parse_arguments(words)
    assert rest == []
    return config


SAMPLING_FLAGS = {
    "checkpoints/a/ema_0.9999_latest.pt": {"checkpoint": "checkpoints/a/ema_0.9999_latest.pt"},
    "--inference_mode hierarchy-2": {"sampling.scheme": "hierarchy-2", "sampling.step_size": 0},
    "--inference_mode autoreg": {"sampling.scheme": "autoreg", "sampling.step_size": 1},
    "--inference_mode autoreg --step_size 7": {"sampling.step_size": 7},
    "--sampling_scheme long-range": {"sampling.scheme": "long-range", "sampling.batch": 0},
    "--max_latent_frames=5": {"sampling.step_size": 5},
    "--obs_length 0": {"sampling.n_obs": 0},
    "--n_obs 12": {"sampling.n_obs": 12},
    "--max_frames 20": {"sampling.max_frames": 20},
    "--T 500": {"data.frames": 500},
    "--num_samples 5": {"sampling.num_samples": 5},
    "--sample_idx 3": {"sampling.sample_idx": 3},
    "--subset_size 100": {"sampling.subset_size": 100},
    "--indices 1 2 3": {"sampling.indices": (1, 2, 3)},
    "--indices=4": {"sampling.indices": (4,)},
    "--start_index 2 --stop_index 5": {"sampling.indices": (2, 3, 4)},
    "--sampling_scheme autoreg --stop_index 2": {"sampling.indices": (0, 1), "sampling.batch": -1},
    "--batch_size 16": {"sampling.batch_size": 16},
    "--eval_dir out": {"sampling.eval_dir": "out"},
    "--dataset_partition train": {"sampling.split": "train"},
    "--override_dataset minerl": {"data.name": "minerl", "sampling.name_dataset": True},
    "--use_ddim True": {"sampling.method": "ddim"},
    "--use_ddim n": {"sampling.method": "ddpm"},
    "--timestep_respacing ddim50": {"sampling.respacing": "ddim50"},
    "--clip_denoised=0": {"sampling.clip": False},
    "--use_gradient_method": {"sampling.guidance": True},
    "--optimality linspace-t": {"sampling.optimality": "linspace-t"},
    "--inference_mode hierarchy-2 --just_visualise": {"sampling.visualise": "small"},
    "--just_visualise --big_visualise": {"sampling.visualise": "big"},
    "--sampling_scheme autoreg --just_visualise": {"sampling.visualise": "refactored"},
    "--device cuda:1": {},
}

TRAINING_FLAGS = {
    "--dataset minerl": {"data.name": "minerl", "network.image_size": 64},
    "--dataset carla_no_traffic": {"network.image_size": 128, "network.attention_at": (8, 16)},
    "--image_size 32": {"network.image_size": 64},
    "--num_channels 64": {"network.channels": 64},
    "--num_res_blocks 2": {"network.res_blocks": 2},
    "--num_heads 2": {"network.heads": 2},
    "--num_heads_upsample -1": {"network.heads_up": -1},
    "--attention_resolutions 32,16": {"network.attention_at": (2, 4)},
    "--dropout 0.1": {"network.dropout": 0.1},
    "--use_checkpoint True": {"network.remat": True},
    "--use_scale_shift_norm False": {"network.scale_shift_norm": False},
    "--use_rpe_net True": {"network.positions": "network"},
    "--use_rpe_net False": {"network.positions": "table", "network.buckets": (300, 300, 300)},
    "--use_rpe_net False --T 30": {"network.buckets": (30, 30, 30), "data.frames": 30},
    "--use_rpe_net no --rp_alpha 10 --rp_beta 20 --rp_gamma 90": {"network.buckets": (10, 20, 90)},
    "--class_cond False": {},
    "--use_fp16 True --fp16_scale_growth 1e-3": {"network.dtype": "bfloat16"},
    "--use_spatial_encoding True": {"network.spatial_encoding": True},
    "--use_frame_encoding True": {"network.frame_encoding": True, "network.train_frames": 300},
    "--cross_frame_attention True": {},
    "--do_cond_marg True": {"network.indicator": "observed+marginal"},
    "--do_cond_marg True --cond_emb_type duplicate": {"network.indicator": "duplicate"},
    "--enforce_position_invariance True": {"network.centre_frames": True},
    "--temporal_augment_type add_manyhead_presoftmax_time": {},
    "--cond_emb_type channel-initzero": {"network.indicator": "observed+marginal"},
    "--cond_emb_type t=0": {"network.indicator": "timestep"},
    "--cond_emb_type=all": {"network.indicator": "duplicate"},
    "--allow_interactions_between_padding False": {"network.padding_attends": False},
    "--diffusion_steps 100": {"diffusion.steps": 100},
    "--noise_schedule cosine": {"diffusion.schedule": "cosine"},
    "--timestep_respacing 250": {"diffusion.respacing": "250"},
    "--use_kl True": {"diffusion.loss": "kl"},
    "--predict_xstart True": {"diffusion.predict": "clean"},
    "--rescale_timesteps False": {"diffusion.rescale_timesteps": False},
    "--rescale_learned_sigmas True": {},
    "--learn_sigma True": {"network.out_channels": 6, "diffusion.variance": "learned_range"},
    "--learn_sigma False": {"network.out_channels": 3, "diffusion.variance": "fixed_large"},
    "--sigma_small True": {"diffusion.variance": "fixed_small"},
    "--T -1": {"data.frames": None},
    "--schedule_sampler loss-second-moment": {"train.timestep_sampler": "loss-second-moment"},
    "--lr 3e-5": {"train.lr": 3e-5},
    "--weight_decay 0.01": {"train.weight_decay": 0.01},
    "--lr_anneal_steps 500": {"train.lr_anneal_steps": 500, "train.steps": 500},
    "--lr_anneal_steps 0": {"train.lr_anneal_steps": 0, "train.steps": 950_000},
    "--batch_size 4 --microbatch 2": {"train.batch_size": 4, "train.microbatch": 2},
    "--max_frames 10": {"train.max_frames": 10},
    "--ema_rate 0.9999,0.999": {"train.ema_rates": (0.9999, 0.999)},
    "--ema_rate 0.9": {"train.ema_rates": (0.9,)},
    "--log_interval 5": {"train.log_every": 5},
    "--save_interval 7": {"train.save_every": 7},
    "--sample_interval 9": {"train.sample_every": 9},
    "--save_latest_only True": {"train.keep": 1},
    "--resume_checkpoint checkpoints/a/model1.pt": {"run.start_from": "checkpoints/a/model1.pt"},
    "--resume_checkpoint= --num_workers 4": {"run.start_from": ""},
    "--resume_id 1v1myd4b": {"run.output": "checkpoints/1v1myd4b", "run.start_from": ""},
    "--pad_with_random_frames False": {"train.pad_with_random_frames": False},
    "--mask_distribution autoregressive-4": {"train.mask_distribution": "autoregressive-4"},
    "--do_inefficient_marg True": {"train.marginal_frames": True},
    "--num_workers 4": {},
    "--n_valid_batches 1 --n_valid_repeats 2 --valid_microbatch -1": {},
    "--n_interesting_masks 3": {},
    "--just_visualise False --just_save_masks 0": {},
    "--fake_seed 1": {},
    "--unobserve": {},
}


@pytest.mark.parametrize("line", SAMPLING_FLAGS)
def test_sampling_flags(line):
    config = sampling(line)
    for field, expected in SAMPLING_FLAGS[line].items():
        assert value(config, field) == expected, field


@pytest.mark.parametrize("line", TRAINING_FLAGS)
def test_training_flags(line):
    config = training(line)
    for field, expected in TRAINING_FLAGS[line].items():
        assert value(config, field) == expected, field
    training_setup(config)  # the fields fit each other


def test_every_flag_is_tested():
    def used(lines):
        return {name for line in lines for name in re.findall(r"--(\w+)", line)}

    assert used(SAMPLING_FLAGS) == set(SAMPLING) - {"checkpoint_path"}
    assert used(TRAINING_FLAGS) == set(TRAINING)


SILENT = ("device", "num_workers", "fp16_scale_growth", "image_size", "class_cond", "unobserve",
          "temporal_augment_type", "rescale_learned_sigmas", "n_valid_batches", "fake_seed",
          "n_valid_repeats", "valid_microbatch", "n_interesting_masks")  # fmt: skip


@pytest.mark.parametrize("name", SILENT)
def test_a_flag_without_a_field_is_answered_in_one_line(name, capsys):
    if name in SAMPLING:
        sampling(f"--{name} 1")
    else:
        training(f"--{name} 1 --resume_id a")
    assert [line for line in capsys.readouterr().out.splitlines() if f"--{name}: " in line]


SAMPLING_MISTAKES = {
    "--indices 1 --subset_size 3": "--subset_size and --indices both choose the videos",
    "--stop_index 4 --indices 7": "--indices and --stop_index disagree",
    "--start_index 4": "--start_index=4 needs --stop_index",
    "--start_index 4 --stop_index 4": "name no video",
    "--step_size 5 --max_latent_frames 6": "--step_size and --max_latent_frames disagree",
    "--n_obs 5 --config.sampling.n_obs=6": "--config.sampling.n_obs and --n_obs disagree",
    "--inference_mode autoreg --sampling_scheme long-range": "disagree",
    "--dataset_partition variable_length": "use test with --T",
    "--use_ddim maybe": "--use_ddim=maybe is not a yes or no",
    "--indices": "--indices has no value",
    "--n_obs": "--n_obs has no value",
    "--n_obs --T 3": "--n_obs has no value",
    "--n_obs some": "config.sampling.n_obs='some' is str, not int",
    "--stop_index x": "--stop_index=x is not a whole number",
    "--config=none.py --n_obs 3": "there is no file none.py",
}

TRAINING_MISTAKES = {
    "--dataset mazes": "--dataset=mazes is unknown",
    "--cond_emb_type both": "--cond_emb_type=both is not one of channel",
    "--cross_frame_attention False": "--cross_frame_attention=False fails upstream",
    "--do_cond_marg False": "--do_cond_marg=False fails upstream",
    "--just_visualise True": "--just_visualise: training masks are not drawn",
    "--just_save_masks 3": "--just_save_masks: training masks are not drawn",
    "--rp_alpha 3": "give all three",
    "--use_rpe_net 0 --rp_alpha 9 --rp_beta 8 --rp_gamma 9": "--rp_alpha=9 must be from 1",
    "--attention_resolutions 16,x": "--attention_resolutions=x is not a whole number",
    "--lr fast": "config.train.lr='fast' is str, not float",
}


@pytest.mark.parametrize("line", SAMPLING_MISTAKES)
def test_sampling_mistakes_are_one_line(line):
    with pytest.raises(ValueError, match=re.escape(SAMPLING_MISTAKES[line])) as error:
        sampling(line)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("line", TRAINING_MISTAKES)
def test_training_mistakes_are_one_line(line):
    with pytest.raises(ValueError, match=re.escape(TRAINING_MISTAKES[line])) as error:
        training_setup(training(line))
    assert "\n" not in str(error.value)


def test_both_dialects_may_agree():
    config = sampling("--step_size 5 --max_latent_frames 5 --obs_length 4 --n_obs 4")
    assert (config.sampling.step_size, config.sampling.n_obs) == (5, 4)


@pytest.mark.parametrize("overrides", [sampling_overrides, training_overrides])
def test_our_own_words_stay_as_they_are(overrides):
    words = [f"--config={MAZES}", "--config.data.name", "minerl", "--plan", "--unknown"]
    assert overrides(words) == words


def test_unknown_words_are_left_for_the_script_to_refuse():
    words = sampling_overrides(["a.pt", "--n_obs", "3", "--plan", "--lr", "2"])
    assert parse_arguments(words)[1] == ["--plan", "--lr", "2"]


def test_a_slurm_task_samples_one_batch():
    task = {"SLURM_ARRAY_TASK_ID": "2"}
    config = sampling("a.pt --inference_mode autoreg --batch_size 4", task)
    assert (config.sampling.batch, config.run.shard) == (2, "0/1")
    config = sampling("a.pt --sampling_scheme autoreg --batch_size 4", task)
    assert (config.sampling.batch, config.run.shard) == (2, "0/1")
    config = sampling("a.pt --inference_mode autoreg --indices 7", task)
    assert (config.sampling.batch, config.run.shard) == (-1, "0/1")
    config = sampling("a.pt --inference_mode autoreg --subset_size 7", task)
    assert (config.sampling.batch, config.run.shard) == (-1, "")
    config = sampling("--n_obs 3", task)  # not upstream's command line: the runner shares
    assert (config.sampling.batch, config.run.shard) == (-1, "")


def test_without_a_config_the_published_settings_are_taken(capsys):
    words = "--num_workers 4 --T 300 --batch_size 8 --max_frames 20 --dataset mazes_cwvae"
    config, _ = parse_arguments(training_overrides(f"{words} --num_res_blocks 1".split(), {}))
    setup = training_setup(config)
    assert (setup.network.in_channels, setup.network.res_blocks, setup.data.frames) == (4, 1, 300)
    assert re.fullmatch(r"checkpoints/mazes_cwvae-[\d-]+", setup.run.output)
    assert f"--resume_id={Path(setup.run.output).name}" in capsys.readouterr().out
    words += " --use_spatial_encoding True"
    config, _ = parse_arguments(training_overrides(words.split(), {"SLURM_JOB_ID": "77"}))
    assert config.network.indicator == "observed+marginal"
    assert config.run.output == "checkpoints/mazes_cwvae-77"


def test_a_run_of_upstreams_is_gone_on_from(tmp_path):
    (tmp_path / "abc").mkdir()
    for name in ("model000000.pt", "model050000.pt", "opt050000.pt", "model_best.pt"):
        (tmp_path / "abc" / name).touch()
    environ = {"DIFFUSION_BLOB_LOGDIR": str(tmp_path)}
    config = training("--resume_id abc", environ=environ)
    assert config.run.output == str(tmp_path / "abc")
    assert config.run.start_from == str(tmp_path / "abc" / "model050000.pt")
    (tmp_path / "abc" / "model_latest.pt").touch()
    config = training("--resume_id abc", environ=environ)
    assert config.run.start_from.endswith("model_latest.pt")
    (tmp_path / "abc" / "checkpoints").mkdir()  # our own run went on from there
    assert training("--resume_id abc", environ=environ).run.start_from == ""
