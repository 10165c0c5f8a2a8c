"""The evaluation of sample folders through its command line."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from metric_weights import random_params

from jaxvid.core import checkpoint, program
from jaxvid.metrics import command, fvd, images, pixels, results, rooms, weights
from jaxvid.metrics.keys import lpips_shapes
from jaxvid.metrics.samples import find_samples
from jaxvid.runs.manifest import Manifest

CONFIG = Path(__file__).parents[1] / "configs" / "evaluate.py"
VIDEOS, SAMPLES, FRAMES, OBSERVED, SIDE = 3, 2, 12, 4, 32


@pytest.fixture(scope="module")
def lpips_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "lpips_alex"
    checkpoint.save(folder, random_params(lpips_shapes("alex")), {"model": "lpips_alex"})
    return folder


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def truth(tmp_path, rng):
    """A dataset in the layout of gqn_mazes-torch."""
    folder = tmp_path / "data" / "test"
    folder.mkdir(parents=True)
    for video in range(VIDEOS):
        frames = rng.integers(0, 256, (FRAMES + 2, SIDE, SIDE, 3), np.uint8)
        np.save(folder / f"{video}.npy", frames)
    return folder


@pytest.fixture
def eval_dir(tmp_path, truth, rng):
    """Samples that equal the ground truth in the observed frames."""
    folder = tmp_path / "hierarchy-2_20_10_12_4"
    (folder / "samples").mkdir(parents=True)
    (folder / "model_config.json").write_text(json.dumps({"dataset": "mazes_cwvae"}))
    for video in range(VIDEOS):
        clip = np.moveaxis(np.load(truth / f"{video}.npy")[:FRAMES], -1, 1)
        for sample in range(SAMPLES):
            drawn = clip.copy()
            drawn[OBSERVED:] = rng.integers(0, 256, drawn[OBSERVED:].shape, np.uint8)
            np.save(folder / "samples" / f"sample_{video:04d}-{sample}.npy", drawn)
    return folder


@pytest.fixture
def evaluate(eval_dir, truth, lpips_folder, monkeypatch, capsys):
    """Runs the command line with I3D replaced by mean colours; returns (exit code, output)."""
    real_load = weights.load

    def load(folder, model):
        return ({}, "hash of i3d") if model == "i3d" else real_load(folder, model)

    def colours(params, clips, batch_size, window):
        return np.array([clip.mean(axis=(0, 1, 2)) for clip in clips])

    monkeypatch.setattr(weights, "load", load)
    monkeypatch.setattr(fvd, "batch_features", colours)

    def run(*flags, folder=eval_dir):
        argv = [
            f"--config={CONFIG}",
            f"--config.data.root={truth.parent}",
            f"--config.metrics.lpips_weights={lpips_folder}",
            f"--eval_dir={folder}",
            f"--obs_length={OBSERVED}",
            *flags,
        ]
        code = program.main(command.main, argv)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out + captured.err

    return run


def stored(eval_dir):
    path = eval_dir / f"metrics_{VIDEOS}-{SAMPLES}-{FRAMES}.pkl"
    return pickle.loads(path.read_bytes()), json.loads(path.with_suffix(".json").read_text())


def test_all_modes_write_the_pickle_the_json_and_the_plots(evaluate, eval_dir, truth):
    code, output = evaluate()
    assert code == 0, output
    values, report = stored(eval_dir)
    shapes = {name: value.shape for name, value in values.items()}
    frame_wise = (VIDEOS, SAMPLES, FRAMES - OBSERVED)
    assert shapes == {"ssim": frame_wise, "psnr": frame_wise, "lpips": frame_wise, "fvd": (2,)}
    assert set(report["protocol"]) == {"ssim", "psnr", "lpips", "fvd"}
    assert report["protocol"]["fvd"]["weights"] == "hash of i3d"
    assert len(report["protocol"]["lpips"]["weights"]) == 64
    assert report["protocol"]["ssim"]["data_range"] == 2.0
    assert report["published"]["fvd"]["hierarchy-2"] == {"mean": 53.1, "error": 1.1}
    assert "53.1 +- 1.1" in output and "TF-Hub" in output
    plots = {path.name for path in eval_dir.glob("*.png")}
    assert plots == {f"metrics_3-2-12_{metric}.png" for metric in ("psnr", "ssim", "lpips")}

    clip = np.load(truth / "1.npy")[OBSERVED:FRAMES]
    sample = np.load(eval_dir / "samples" / "sample_0001-1.npy")[OBSERVED:]
    sample = np.moveaxis(sample, 1, -1)
    expected = images.ssim(pixels.unit(clip), pixels.unit(sample), 2.0)
    np.testing.assert_allclose(values["ssim"][1, 1], expected, atol=1e-6)
    expected = images.psnr(pixels.unit(clip), pixels.unit(sample))
    np.testing.assert_allclose(values["psnr"][1, 1], expected, atol=1e-5)


def test_the_gallery_shows_the_means_of_each_sample(evaluate, eval_dir):
    row = {"id": "sample_0001-1", "status": "done", "outputs": {}}
    Manifest(eval_dir).append(row)
    (eval_dir / "index.html").write_text("")
    code, output = evaluate("--modes", "psnr")
    assert code == 0 and "gallery: " in output
    assert evaluate("--modes", "ssim")[0] == 0
    means = json.loads((eval_dir / "metrics.json").read_text())
    values, _ = stored(eval_dir)
    assert len(means) == VIDEOS * SAMPLES
    expected = {name: values[name][1, 1].mean() for name in ("psnr", "ssim")}
    assert means["sample_0001-1"] == pytest.approx(expected)
    assert str(means["sample_0001-1"]["psnr"]) in (eval_dir / "index.html").read_text()


def test_fvd_uses_all_frames_and_truncates_the_truth(evaluate, eval_dir, truth, rng):
    """Samples equal to the truth have a distance above 0, since only the truth is truncated."""
    for video in range(VIDEOS):
        clip = np.moveaxis(np.load(truth / f"{video}.npy")[:FRAMES], -1, 1)
        np.save(eval_dir / "samples" / f"sample_{video:04d}-0.npy", clip)
    assert evaluate("--modes", "fvd", "--num_samples=1")[0] == 0
    assert evaluate("--modes", "fvd", "--num_samples=1", "--T=11",
                    "--config.metrics.pixels=exact")[0] == 0  # fmt: skip
    truncated = pickle.loads((eval_dir / "metrics_3-1-12.pkl").read_bytes())["fvd"]
    exact = pickle.loads((eval_dir / "metrics_3-1-11.pkl").read_bytes())["fvd"]
    assert truncated > 0.01
    np.testing.assert_allclose(exact, 0, atol=1e-9)


def test_modes_that_are_stored_are_not_computed_again(evaluate, eval_dir, truth):
    assert evaluate("--modes", "psnr")[0] == 0
    first, _ = stored(eval_dir)
    assert set(first) == {"psnr"}
    assert evaluate("--modes", "psnr", "ssim")[0] == 0
    for path in truth.iterdir():
        path.unlink()
    code, output = evaluate("--modes", "ssim", "psnr")
    assert code == 0 and "already" in output
    second, report = stored(eval_dir)
    assert set(second) == set(report["summary"]) == {"psnr", "ssim"}
    np.testing.assert_array_equal(first["psnr"], second["psnr"])


def test_an_upstream_pickle_is_kept_and_marked(evaluate, eval_dir):
    path = eval_dir / f"metrics_{VIDEOS}-{SAMPLES}-{FRAMES}.pkl"
    psnr = np.full((VIDEOS, SAMPLES, FRAMES - OBSERVED), 20.0)
    path.write_bytes(pickle.dumps({"psnr": psnr}))
    assert evaluate("--modes", "psnr", "ssim")[0] == 0
    values, report = stored(eval_dir)
    np.testing.assert_array_equal(values["psnr"], psnr)
    assert report["protocol"]["psnr"] == results.UNKNOWN
    assert report["protocol"]["ssim"]["first_frame"] == OBSERVED


def test_stored_results_of_another_protocol_are_refused(evaluate):
    assert evaluate("--modes", "ssim")[0] == 0
    for flags, field in (
        (["--obs_length=5"], "first_frame 4 vs 5|first_frame 5 vs 4"),
        (["--config.metrics.ssim_data_range=1.0"], "data_range"),
    ):
        code, output = evaluate("--modes", "ssim", *flags)
        assert code == 2 and output.count("\n") == 1
        assert any(part in output for part in field.split("|")), output


def test_compare_shows_equal_and_refuses_other_protocols(evaluate, eval_dir):
    assert evaluate("--modes", "psnr")[0] == 0
    assert evaluate("--modes", "psnr", "--T=10")[0] == 0
    a, b = (str(eval_dir / f"metrics_3-2-{frames}.json") for frames in (12, 10))
    code, output = evaluate("--compare", a, a)
    assert code == 0 and "best_avg" in output
    code, output = evaluate("--compare", a, b)
    assert code == 2 and "frames 12 vs 10" in output


def test_comparison_of_a_missing_file_is_refused(evaluate, tmp_path):
    code, output = evaluate("--compare", str(tmp_path / "no.json"), str(tmp_path / "no.json"))
    assert code == 2 and "there is no results file" in output


def test_samples_are_sorted_by_number(tmp_path):
    (tmp_path / "samples").mkdir()
    for sample in (10, 2, 0):
        path = tmp_path / "samples" / f"sample_0007-{sample}.npy"
        np.save(path, np.full((3, 3, 8, 8), sample, np.uint8))
    samples = find_samples(tmp_path)
    assert samples.videos == [7] and samples.name == "metrics_1-3-3"
    assert [samples.load(7, column)[0, 0, 0, 0] for column in range(3)] == [0, 2, 10]


def remove_samples(eval_dir):
    for path in (eval_dir / "samples").iterdir():
        path.unlink()


def one_of_another_size(eval_dir):
    np.save(eval_dir / "samples" / "sample_0002-1.npy", np.zeros((FRAMES, 3, 16, 16), np.uint8))


def one_of_another_type(eval_dir):
    np.save(eval_dir / "samples" / "sample_0000-0.npy", np.zeros((FRAMES, 3, SIDE, SIDE)))


def one_missing(eval_dir):
    (eval_dir / "samples" / "sample_0001-1.npy").unlink()


def one_cut_off(eval_dir):
    path = eval_dir / "samples" / "sample_0001-1.npy"
    path.write_bytes(path.read_bytes()[:-1000])


def one_misnamed(eval_dir):
    path = eval_dir / "samples" / "sample_0001-1.npy"
    path.rename(path.with_name("sample_one.npy"))


def one_video_too_many(eval_dir):
    for sample in range(SAMPLES):
        np.save(
            eval_dir / "samples" / f"sample_0099-{sample}.npy",
            np.zeros((FRAMES, 3, SIDE, SIDE), np.uint8),
        )


def no_model_config(eval_dir):
    (eval_dir / "model_config.json").unlink()


def broken_model_config(eval_dir):
    (eval_dir / "model_config.json").write_text("{")


def hostile_pickle(eval_dir):
    class Hostile:
        def __reduce__(self):
            return print, ("hacked",)

    path = eval_dir / f"metrics_{VIDEOS}-{SAMPLES}-{FRAMES}.pkl"
    path.write_bytes(pickle.dumps({"psnr": Hostile()}))


@pytest.mark.parametrize(
    "spoil, flags, message",
    [
        (remove_samples, [], "holds no sample_"),
        (one_of_another_size, [], "sizes differ"),
        (one_of_another_type, [], "not uint8"),
        (one_missing, [], "video 1 has 1 samples, 2 are needed"),
        (one_cut_off, [], "cannot be read"),
        (one_misnamed, [], "is not named"),
        (one_video_too_many, [], "video 99"),
        (no_model_config, [], "--dataset=NAME"),
        (broken_model_config, [], "is not JSON"),
        (hostile_pickle, [], "is not a pickle of arrays"),
        (None, ["--T=13"], "T=13 is not within the samples' 12 frames"),
        (None, ["--T=0"], "T=0 must be 1 or more"),
        (None, ["--T=8", "--modes", "fvd"], "9 frames or more, got 8"),
        (None, ["--obs_length=12"], "obs_length=12 leaves none of the 12 frames"),
        (None, ["--num_samples=3"], "video 0 has 2 samples, 3 are needed"),
        (None, ["--modes", "psmr"], "mode 'psmr' is unknown"),
        (None, ["--modes", "elbo"], "holds no elbo_<video>.pkl"),
        (None, ["--dataset=mazez"], "dataset 'mazez' is unknown"),
        (None, ["--dataset_partition=valid"], "use train or test"),
        (None, ["--dataset_partition=train"], "there is no such data folder"),
        (None, ["--config.metrics.pixels=rounded"], "pixels='rounded' is unknown"),
        (None, ["--config.metrics.lpips_net=vgg"], "holds weights of 'lpips_alex'"),
        (None, ["--config.metrics.lpips_weights=/nowhere"], "scripts/convert.py --model=lpips"),
        (None, ["--config.data.size=64"], "32x32"),
        (None, ["--config.metrics.fvd_window=64"], "window=64 is too short"),
        (None, ["--modes", "rooms"], "64x64 GQN-Mazes frames, got 32x32"),
        (None, ["--frames=3"], "unrecognized arguments: --frames=3"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    evaluate, eval_dir, monkeypatch, spoil, flags, message
):
    monkeypatch.setattr(command, "progress", lambda *_: pytest.fail("work began"))
    if spoil is not None:
        spoil(eval_dir)
    code, output = evaluate(*flags)
    assert code == 2 and message in output, output
    assert output.count("\n") == 1, output


def test_a_missing_folder_is_named(evaluate, tmp_path):
    code, output = evaluate("--dataset=mazes_cwvae", folder=tmp_path / "none")
    assert code == 2 and "none has no folder samples/" in output


def test_missing_i3d_names_the_download(tmp_path):
    with pytest.raises(ValueError) as error:
        weights.load(str(tmp_path / "i3d"), "i3d")
    for part in ("curl", "rgb_imagenet.pt", f"--output={tmp_path}/i3d"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_video_fvd_writes_one_number(evaluate, eval_dir):
    code, output = evaluate("--num_videos=2", "--sample_idx=1")
    assert code == 0, output
    number = float((eval_dir / "fvd-2-1.txt").read_text())
    (eval_dir / "fvd-2-1.txt").write_text("5.0")
    assert number > 0
    code, output = evaluate("--num_videos=2", "--sample_idx=1")
    assert code == 0 and "FVD: 5.0" in output
    code, output = evaluate("--num_videos=4", "--sample_idx=1")
    assert code == 2 and "video 3 has no sample 1" in output


def test_elbo_files_give_bits_per_dimension(evaluate, eval_dir):
    (eval_dir / "elbos").mkdir()
    for video, total in enumerate((8.0, 16.0)):
        terms = {"total_bpd": np.array([total, total]), "mse": np.zeros(2)}
        (eval_dir / "elbos" / f"elbo_{video}.pkl").write_bytes(pickle.dumps(terms))
    (eval_dir / "elbos" / "elbo_0_ddim.pkl").write_bytes(b"another setting")
    code, output = evaluate("--modes", "elbo")
    assert code == 0, output
    report = json.loads((eval_dir / "elbo_2-12.json").read_text())
    assert report["videos"] == {"0": 2.0, "1": 4.0}  # 8 frames are predicted
    assert report["summary"]["elbo"] == {"mean": 3.0, "error": 1.0}


def test_rooms_are_counted(evaluate, eval_dir, truth, monkeypatch):
    monkeypatch.setattr(rooms, "check_size", lambda *_: None)
    code, output = evaluate("--modes", "rooms")
    assert code == 0 and "rooms (share)" in output
    values, report = stored(eval_dir)
    assert values["rooms"].tolist() == [1, 1]  # noise is never green enough for a hallway
    assert report["protocol"]["rooms"]["first_frame"] == OBSERVED


def test_infinite_psnr_is_valid_json(evaluate, eval_dir, truth):
    for video in range(VIDEOS):
        clip = np.moveaxis(np.load(truth / f"{video}.npy")[:FRAMES], -1, 1)
        np.save(eval_dir / "samples" / f"sample_{video:04d}-0.npy", clip)
    assert evaluate("--modes", "psnr", "--config.metrics.pixels=exact")[0] == 0
    text = (eval_dir / "metrics_3-2-12.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert json.loads(text)["summary"]["psnr"]["best"] == "inf"


def test_the_script_runs_from_the_repository(eval_dir, truth):
    flags = [f"--eval_dir={eval_dir}", "--modes", "psnr", "--obs_length=4"]
    command_line = [sys.executable, "scripts/evaluate.py", *flags]
    command_line.append(f"--config.data.root={truth.parent}")
    environment = {**os.environ, "PYTHONPATH": str(CONFIG.parents[1])}
    done = subprocess.run(
        command_line, cwd=CONFIG.parents[1], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "metrics_3-2-12.json" in done.stdout
