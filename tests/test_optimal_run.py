"""The search for an optimal schedule with a network, and pictures of schedules, end to end."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import random_params
import script
from PIL import Image

from jaxvid.core.config import parse_arguments
from jaxvid.core.mesh import MeshConfig
from jaxvid.data.sources import DataConfig
from jaxvid.fdm import elbo, marking, requests, sample
from jaxvid.fdm.flags import sampling_overrides
from jaxvid.fdm.model import Model, abstract_parameters, load_model, save_model
from jaxvid.fdm.optimal import load_schedule
from jaxvid.fdm.optimal_run import Evaluator, SearchConfig, evaluations, find_schedule
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.sample_config import SampleConfig, Settings
from jaxvid.fdm.scheme import Step
from jaxvid.fdm.setup import sampling_settings
from jaxvid.fdm.unet import UNetConfig
from jaxvid.fdm.visualise import picture_settings, visualise
from jaxvid.runs.requests import Chunk

ROOT = Path(__file__).parents[1]
NETWORK = UNetConfig(image_size=16, channels=32, channel_mult=(1,), attention_at=(1,))
SAMPLING = SampleConfig(
    scheme="autoreg", n_obs=3, respacing="4", video="none", batch_size=2, split="test"
)
SEARCH = SearchConfig(num_timesteps=2, subset_size=4)
ARGUMENTS = {"max_frames": 4, "dataset": "maze_walk"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random model none of whose layers is zero."""
    params = random_params.everywhere(abstract_parameters(NETWORK), 0.1)
    path = tmp_path_factory.mktemp("checkpoints") / "ema_0.9"
    save_model(path, Model(NETWORK, DiffusionConfig(), params, ARGUMENTS, 3))
    return path


def settings(checkpoint, output="", **sampling) -> Settings:
    changed = dataclasses.replace(SAMPLING, **sampling)
    return Settings(
        checkpoint=str(checkpoint),
        network=NETWORK,
        diffusion=DiffusionConfig(respacing=changed.respacing),
        arguments=ARGUMENTS,
        step=3,
        data=DataConfig(name="maze_walk", frames=7, size=16, train_videos=6, test_videos=2),
        sampling=changed,
        mesh=MeshConfig(),
        T=7,
        max_frames=4,
        step_size=2,
        output=str(output),
    )


@pytest.fixture
def two_devices(monkeypatch):
    every = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda *_: every[:2])


def test_elbo_files_follow_the_checkpoint(checkpoint, tmp_path, two_devices, capsys):
    """Kept as they are, unless their note names another checkpoint or other settings."""
    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    config = settings(other, tmp_path / "out", scheme="autoreg", indices=(1,))
    (path,) = elbo.evaluate_elbo(config)
    first = path.read_bytes()
    elbo.evaluate_elbo(config)
    assert path.read_bytes() == first and "made again" not in capsys.readouterr().out
    model = load_model(other)
    changed = jax.tree.map(lambda a: a * 1.1, model.params)
    save_model(other, dataclasses.replace(model, params=changed), overwrite=True)
    elbo.evaluate_elbo(config)
    assert path.read_bytes() != first and "made again" in capsys.readouterr().out
    path.with_name(path.name + ".json").unlink()  # as upstream's files are
    path.write_bytes(first)
    elbo.evaluate_elbo(config)
    assert path.read_bytes() == first and "without a note" in capsys.readouterr().out


def test_errors_are_those_of_the_elbo(checkpoint, two_devices):
    """The terms that ELBO files hold, of the same frames, timesteps and noise."""
    config = settings(checkpoint)
    error = Evaluator(config)
    found = error(5, [0, 2], [4], np.array([1, 3, 2]), np.array([2, 0, 3]))
    videos = marking.normalise(np.stack([error.source[i] for i in (1, 3, 2)]))
    clean, frames = elbo.gather_step(videos, [[0, 2]] * 3, [[4]] * 3)
    keys = jax.numpy.stack([elbo.request_key(0, f"optimal_{i}") for i in (1, 3, 2)])
    noise = elbo.call_noise(keys, 5, (4, 16, 16, 3))(0)[:, :3]
    times = jax.numpy.asarray(error.process.network_timesteps)

    def denoise(x, at):
        return elbo.network(NETWORK, error.params, x, clean, times[at], frames)

    terms = elbo.diffusion.bits_per_dimension(
        error.process, denoise, clean, frames.latent, lambda _: noise, np.array([[2, 0, 3]])
    )
    # One frame of padding does not exist; float32, sums in another order.
    np.testing.assert_allclose(found, 3 * 4 * terms["mse"][:, 0], rtol=1e-4)
    assert error._errors._cache_size() == 1  # a full and a padded batch
    again = error(5, [2, 0], [4, 5], np.array([3]), np.array([0]))
    assert again.shape == (1,) and error._errors._cache_size() == 1


def test_search_then_sampling(checkpoint, tmp_path, two_devices, capsys):
    plain = settings(checkpoint, tmp_path)
    path = find_schedule(plain, SEARCH)
    steps = plain.steps()
    schedule = load_schedule(path)
    assert path == tmp_path / "optimal_schedule.json"
    assert list(schedule) == list(range(len(steps))) == [0, 1]
    done = set(range(3))
    for number, step in enumerate(steps):
        assert len(schedule[number]) == 2 and set(schedule[number]) <= done
        done |= set(step.latent)
    lines = capsys.readouterr().out.splitlines()
    judged = [line for line in lines if line.startswith("call ")]
    assert len(judged) * SEARCH.videos == evaluations(plain, SEARCH, [0, 1])
    best = settings(checkpoint, tmp_path, optimality="linspace-t")
    assert best.steps() == [Step(schedule[n], step.latent) for n, step in enumerate(steps)]
    generator = sample.load(best)
    chunks = list(generator.generate(requests.requests(best)))
    assert sum(isinstance(chunk, Chunk) for chunk in chunks) == 2
    find_schedule(plain, SEARCH)  # is there: nothing is searched
    assert not capsys.readouterr().out


def test_array_tasks_make_the_same_schedule(checkpoint, tmp_path, monkeypatch):
    def distance(self, step, observed, latent, videos, timesteps):
        return np.full(len(videos), abs(sum(observed) - 3.2 - step))

    monkeypatch.setattr(Evaluator, "__call__", distance)
    whole = find_schedule(settings(checkpoint, tmp_path / "whole"), SEARCH)
    for step in (1, 0):
        path = find_schedule(
            settings(checkpoint, tmp_path / "parts"), dataclasses.replace(SEARCH, step=step)
        )
        assert path.exists() == (step == 0)
    assert path.read_text() == whole.read_text()


def optimal_schedule(argv) -> int:
    return script.load("optimal_schedule").optimal_schedule(argv)


def words(checkpoint, *more) -> list[str]:
    data = {"name": "maze_walk", "frames": 7, "size": 16, "train_videos": 6, "test_videos": 2}
    fields = [f"--config.data.{name}={value}" for name, value in data.items()]
    sizes = "--inference_mode autoreg --obs_length 3 --max_frames 4 --step_size 2".split()
    return [str(checkpoint), "--timestep_respacing", "4", *sizes, *fields, *more]


def test_the_script_writes_where_sampling_reads(
    checkpoint, tmp_path, monkeypatch, two_devices, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    line = words(checkpoint, "--optimality", "linspace-t-force-nearby", "--batch_size", "2")
    flags = ["--num_timesteps", "2", "--subset_size", "2"]
    assert optimal_schedule([*line, "--submit", "--slurm_max_array", "4", *flags]) == 0
    assert "--array=0,1%4" in capsys.readouterr().out
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert optimal_schedule([*line, *flags]) == 0
    assert "calls left: [0]" in capsys.readouterr().out
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    assert optimal_schedule([*line, *flags]) == 0
    config, _ = parse_arguments(sampling_overrides(line, {}))
    found = sampling_settings(config)
    name = "autoreg_optimal-linspace-t-force-nearby_4_2_7_3"
    assert found.folder.name == name
    files = list(tmp_path.glob("results/**/optimal_schedule.json"))
    assert [file.parent.name for file in files] == [name]
    assert [step.observed for step in found.steps()] == list(load_schedule(files[0]).values())
    assert 2 in found.steps()[0].observed  # the nearest


MISTAKES = {
    "num_timesteps must be at least 1": ["--num_timesteps", "0"],
    "subset_size=5 is not a multiple of num_timesteps=2": ["--num_timesteps=2", "--subset_size=5"],
    "subset_size=100 exceeds the 6 training videos": [],
    "step=2: the scheme has calls 0 to 1": ["--step", "2"],
    "optimality='random-t' is not one of": ["--optimality", "random-t"],
    "--step=first is not a whole number": ["--step", "first"],
    "unknown argument --steps": ["--steps", "2"],
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_of_a_search(checkpoint, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=message):
        optimal_schedule(words(checkpoint, *MISTAKES[message]))


def test_an_adaptive_scheme_has_no_schedule(checkpoint, tmp_path):
    config = settings(checkpoint, tmp_path, scheme="adaptive-autoreg", distance="pixels")
    with pytest.raises(ValueError, match="'adaptive-autoreg' chooses its own frames"):
        find_schedule(config, SEARCH)


def picture(line: str):
    return picture_settings(parse_arguments(sampling_overrides(line.split(), {}))[0])


STYLES = {
    "sample_vis_autoreg_T=30_sampling_4_out_of_8.png": "--inference_mode autoreg --obs_length 10",
    "sample_vis_autoreg_uncond_T=30_sampling_4_out_of_8.png": (
        "--inference_mode autoreg --obs_length 0 --big_visualise"
    ),
    "vis_autoreg_sampling-30-given-10_4-8-chunks.png": "--sampling_scheme autoreg --n_obs 10",
}


@pytest.mark.parametrize("name", STYLES)
def test_a_picture_needs_no_checkpoint(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    line = f"missing.pt {STYLES[name]} --step_size 4 --max_frames 8 --T 30 --just_visualise"
    paths = visualise(picture(line), folder=tmp_path)
    assert [path.name for path in paths] == [name] == [p.name for p in tmp_path.iterdir()]
    with Image.open(paths[0]) as image:
        width, height = image.size
    calls = 7 if "uncond" in name else 5
    small = name == next(iter(STYLES))
    assert (width, height) == ((30, 2 * calls + 1) if small else (151, 5 * calls + 1))


def test_pictures_of_an_adaptive_scheme_are_one_for_each_video(checkpoint, tmp_path):
    config = settings(
        *(checkpoint, tmp_path), scheme="adaptive-autoreg", distance="pixels", visualise="big"
    )
    paths = visualise(config, folder=tmp_path)
    names = [f"sample_vis_adaptive-autoreg_T=7_sampling_2_out_of_4_index-{i}.png" for i in (0, 1)]
    assert [path.name for path in paths] == names
    seen = []
    visualise(config, lambda frames: seen.append(frames.shape[1:]) or frames[:, 0, 0], tmp_path)
    assert set(seen) == {(16, 16, 3)}


def test_a_picture_of_an_optimal_schedule(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "a.json").write_text(json.dumps({"schedule": {"0": [0], "1": [0]}}))
    line = "--inference_mode autoreg --step_size 2 --max_frames 4 --T 6 --obs_length 2"
    line += (
        f" --just_visualise --optimality linspace-t --config.sampling.schedule={tmp_path}/a.json"
    )
    path = visualise(picture(line), folder=tmp_path)[0]
    assert path.name == "sample_vis_autoreg_optimal-linspace-t_T=6_sampling_2_out_of_4.png"
    with Image.open(path) as image:
        rows = np.asarray(image)[1::2]
    assert rows[:, :2, 0].tolist() == [[255, 50], [255, 50]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--inference_mode autoreg --T 30", r"data.frames \(--T\) and sampling.max_frames"),
        ("--inference_mode autoreg --max_frames 8", r"data.frames \(--T\)"),
        ("--inference_mode adaptive-autoreg --T 30 --max_frames 8", "needs data.name"),
        (
            "--inference_mode autoreg --T 30 --max_frames 8 --obs_length 3 --optimality linspace-t",
            "needs sampling.schedule",
        ),
    ],
)
def test_pictures_say_what_they_need(line, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match=message):
        picture(f"{line} --just_visualise")
