"""What LongLive's training refuses, in one line before weights are read."""

import dataclasses

import pytest
from small_longlive_train import config_of, run, system_of, write

from jaxvid.core.config import load_config
from jaxvid.longlive.train_setup import training_setup

pytestmark = pytest.mark.usefixtures("at_root")

BAD = [
    ("dmd", "train.batch_size=3", "is not a multiple of mesh.data=2: use 4"),
    ("dmd", "train.frames=5", "train.frames=5 is no multiple of rollout.block=2: use 4"),
    ("dmd", "train.lora_rank=4", "set train.ema=0"),
    ("dmd", "data.height=15", "15"),
    ("dmd", "data.prompts=nowhere.txt", "nowhere.txt cannot be read"),
    ("dmd", "teacher.channels=8", "the teacher makes 8 channels of latents, the VAE has 4"),
    ("dmd", "critic.text_width=8", "the critic reads embeddings 8 wide"),
    ("dmd", "run.start_from=x.pt", "name the generator to start from in models.transformer"),
    ("dmd", "models.lora=x.pt", "reads no files"),
    ("streaming", "train.new_frames=3", "train.new_frames=3 is no multiple"),
    ("streaming", "train.new_frames=8", "is more than the train.frames=6"),
    ("streaming", "train.new_frames=6", "leaves none of the train.frames=6 to begin with an image"),
    ("streaming", "train.max_frames=4", "less than the first chunk"),
    ("streaming", "train.switch_frames=(6,14)", "has 14, at train.max_frames=14 videos end"),
    ("dmd", "models.lora_alpha=4", "fresh adapters take train.lora_rank and train.lora_alpha"),
    ("ode", "rollout.relative_rope=True", "no effect on train.stage=ode"),
    ("streaming", "data.prompts=data/prompts/text.txt", "one prompt, streaming needs two"),
    ("flow_matching", "data.videos=", "data.videos is empty"),
    ("flow_matching", "data.videos=data/clips", "has no caption"),
    ("flow_matching", "train.frames=2000", "latent frames are more than"),
    ("flow_matching", "train.frames=500", "train.frames needs 999"),
    ("ode", "data.pairs=nowhere", "there is no such folder"),
    ("ode", "rollout.steps=(1000,0)", "must not hold 0"),
    ("ode", "mesh.data=3", "does not use exactly"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "assignment", "message"), BAD)
def test_bad_input_is_one_line_before_weights(tmp_path, stage, assignment, message):
    def never(*_):
        raise AssertionError("weights were read")

    with pytest.raises(ValueError) as error:
        system = system_of(stage, tmp_path / "run", assignment)
        system.initial_state = system.abstract_state = never
        run(system, devices=2)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_devices_that_cannot_share_a_network_are_named(tmp_path):
    system = system_of("dmd", tmp_path / "run", "mesh.tensor=2", "teacher.heads=1")
    with pytest.raises(ValueError, match=r"mesh\.tensor=2 does not divide the 1 heads"):
        run(system, devices=2)


def test_files_of_another_kind_are_named(tmp_path):
    """Each field of `models` says what is wrong with its own file."""
    bad = write(tmp_path / "bad.pt", "no checkpoint")
    config = config_of("dmd", tmp_path / "run", "models.random=False")
    plain = load_config("configs/longlive_train.py:dmd")
    config.update({name: plain[name] for name in ("network", "critic", "teacher", "vae", "text")})
    with pytest.raises(ValueError, match=r"models\.transformer=checkpoints/ode_init\.pt"):
        training_setup(config)
    config.models.transformer = bad
    with pytest.raises(ValueError, match=r"bad\.pt"):
        training_setup(config)


@pytest.mark.parametrize(
    ("stage", "named"),
    [("streaming", ("transformer", "critic", "teacher", "vae")), ("dmd", ("teacher",))],
)
def test_networks_that_do_not_learn_tell_runs_apart(tmp_path, stage, named):
    """Those of the checkpoints may have moved away."""
    setup = training_setup(config_of(stage, tmp_path / "run"))
    fields = ("transformer", "critic", "teacher", "vae", "text_encoder")
    paths = {field: write(tmp_path / field, field) for field in fields}
    models = dataclasses.replace(setup.models, random=False, **paths)
    setup = dataclasses.replace(setup, models=models)
    for field in fields[:4]:
        before = setup.fingerprint["models"]
        write(tmp_path / field, "other weights")
        changed = {n for n, value in setup.fingerprint["models"].items() if value != before[n]}
        assert changed == {field} & set(named)
