"""LongLive's mistakes, in one line before weights are read, and files of upstream or ours."""

import sys

import jax
import numpy as np
import pytest
import script
import small_longlive

from jaxvid.core import program, torch_file
from jaxvid.core.config import parse_arguments
from jaxvid.core.video import write_video
from jaxvid.longlive import models, sample
from jaxvid.longlive.memory import sampling_mesh
from jaxvid.longlive.mode import LongLiveMode
from jaxvid.wan import vae_keys

ROOT = small_longlive.ROOT


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Calls the script with what it has to refuse; gives its line on stderr."""
    monkeypatch.chdir(ROOT)

    def never(*args, **kwargs):
        raise AssertionError("weights were read")

    for module, name in ((sample, "load"), (models, "embed"), (models, "load_transformer")):
        monkeypatch.setattr(module, name, never)

    def call(argv):
        monkeypatch.setattr(sys, "argv", ["sample.py", *map(str, argv)])
        assert program.main(script.load("sample").sample) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        return line

    return call


LONG = "wet " * 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling.pixel_frames": 50}, "50 frames do not fit the VAE: use 2 * k + 1, e.g. 49"),
        ({"sampling.height": 17}, "17x32 pixels do not fit the VAE: use multiples of 2"),
        ({"sampling.height": 18}, "use a multiple of 4 as height"),
        ({"rollout.window": 4}, "window=4 is smaller than block=3 plus sink=2"),
        ({"sampling.latent_frames": 1030}, "1032 latent frames are more than the 1024"),
        ({"sampling.prompt": ""}, "sampling.prompt: the prompt is empty"),
        ({"sampling.prompt": LONG}, "longer than 512 tokens, "),
        ({"sampling.prompt": ("a", "b")}, "2 prompts need 1 switch_frames, not 0"),
        ({"sampling.prompts": "no.txt"}, "no.txt cannot be read: No such file"),
        ({"sampling.prompts": "README.md"}, "README.md has to be a .txt or .jsonl file"),
        ({"sampling.switch_frames": 3}, "have one prompt each"),
        ({"sampling.switch_frames": "(4, 4)"}, "have to rise"),
        ({"sampling.video": "data/clips/maze_walk.mp4"}, "continued with 2 prompts"),
        ({"sampling.decoder": "separate", "mesh.data": 8}, "does not use exactly the 7 devices"),
        ({"mesh.tensor": 8}, "mesh.tensor=8 does not divide the 2 heads"),
        ({"sampling.width": 36, "mesh.seq": 8}, "does not divide the 108 tokens of 3 "),
        ({"rollout.zero_sink": True}, "set global_sink=False"),
        ({"sampling.batch_size": 0}, "sampling.batch_size=0 must be at least 1"),
        ({"models.random": False}, "config.network gives the sizes of random networks"),
        ({"models.lora": "lora.pt"}, "models.random=True reads no files"),
        ({"network.channels": 4}, "the transformer makes 4 channels of latents, the VAE has 16"),
        ({"text.width": 16}, "reads embeddings 32 wide, the text encoder makes them 16 wide"),
        ({"models.tokenizer": "data/clips"}, "there is no tokenizer data/clips/tokenizer.json"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line(refusal, tmp_path, changes, message):
    assert message in refusal(small_longlive.arguments(run__output=tmp_path, **changes))


def test_of_a_prompt_that_is_too_long_the_rest_is_named(refusal, tmp_path, monkeypatch):
    changes = {"sampling.prompt": LONG, "run.output": tmp_path}
    assert "'wet wet wet" in refusal(small_longlive.arguments(**changes))
    mode = LongLiveMode(small_longlive.config(**changes, sampling__long_prompts="cut"))
    (request,) = mode.requests()
    assert "of a prompt is cut" in mode.plan([request]).frames[0].note


CONTINUED = {"sampling.prompt": ("a", "b")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such video file"),
        (b"", "the file is empty (0 bytes)"),
        (b"not a video" * 100, "damaged or not a video"),
        (5, "has 5 frames, sampling.conditioning_frames=8: use at most 5"),
    ],
)
def test_clips_that_cannot_be_used(refusal, tmp_path, content, message):
    clip = tmp_path / "clip.mp4"
    if isinstance(content, bytes):
        clip.write_bytes(content)
    elif content:
        write_video(clip, np.zeros((content, 16, 32, 3), np.uint8), 16)
    changes = {**CONTINUED, "sampling.video": clip, "run.output": tmp_path / "out"}
    assert message in refusal(small_longlive.arguments(**changes))


def test_a_clip_longer_than_the_video(refusal, tmp_path):
    changes = {**CONTINUED, "sampling.video": "data/clips/maze_walk.mp4", "run.output": tmp_path}
    line = refusal(small_longlive.arguments(**changes, sampling__latent_frames=4))
    assert "the clip has 4 latent frames, the whole video only 4" in line


def test_a_clip_longer_than_a_single_pass(refusal, tmp_path):
    changes = {**CONTINUED, "sampling.video": "data/clips/maze_walk.mp4", "run.output": tmp_path}
    changes |= {"sampling.conditioning_frames": 16, "sampling.latent_frames": 12}
    line = refusal(small_longlive.arguments(**changes, rollout__conditioning="single"))
    assert "8 conditioning latents do not fit a window of 7 in a single pass" in line


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return small_longlive.write_files(tmp_path_factory.mktemp("files"))


def with_files(files, **changes) -> list[str]:
    fields = {f"models.{name}": path for name, path in (files | changes).items()}
    fields |= {"sampling.height": 16, "sampling.width": 32, "sampling.prompt": "A tram."}
    return [
        f"--config={ROOT}/configs/longlive.py",
        *(f"--config.{name}={value}" for name, value in fields.items()),
    ]


def test_weights_of_another_kind(refusal, files):
    cases = {
        "transformer": (files["vae"], "holds conv1.weight, conv1.bias"),
        "lora": (files["vae"], "the tensors do not fit: no rule takes 94"),
        "vae": (files["text_encoder"], "not a Wan2.1 VAE"),
        "text_encoder": (files["vae"], "not a UMT5 encoder"),
        "tokenizer": (files["vae"], "is not a tokenizer.json"),
    }
    for name, (path, message) in cases.items():
        line = refusal(with_files(files, **{name: path}))
        assert message in line or "not a Wan transformer" in line, (name, line)
        assert str(path) in line
    assert "there is no such file" in refusal(with_files(files, vae="no.pth"))
    assert "data/fdm_demo is a checkpoint of 'fdm'" in refusal(
        with_files(files, transformer="data/fdm_demo")
    )


def test_missing_and_extra_tensors_are_listed(refusal, files, tmp_path):
    content = dict(torch_file.load(files["transformer"])["generator"])
    content["model.odd.weight"] = content.pop("model.head.head.bias")
    torch_file.save_pt(tmp_path / "odd.pt", {"generator": content})
    line = refusal(with_files(files, transformer=tmp_path / "odd.pt"))
    assert "lacks 1 tensors (head.head.bias) and has 1 tensors (odd.weight) too many" in line


def test_averages_that_a_file_lacks(refusal, files, tmp_path):
    content = torch_file.load(files["transformer"])["generator"]
    torch_file.save_pt(tmp_path / "flat.pt", dict(content))
    line = refusal(with_files(files, transformer=tmp_path / "flat.pt", use_ema=True))
    assert "holds one set of weights, no generator_ema: use models.use_ema=False" in line


def test_lora_of_another_rank(refusal, files):
    line = refusal(with_files(files, lora_rank=256))
    assert "has rank 4, models.lora_rank=256: use the rank it has" in line


def test_converted_checkpoints_are_the_same_networks(files, tmp_path, monkeypatch):
    """Files of upstream with a LoRA beside them, or folders of ours with the LoRA merged."""
    monkeypatch.chdir(ROOT)
    convert = script.load("convert").main
    for name, kind, more in (
        ("transformer", "wan_dit", [files["lora"]]),
        ("vae", "wan_vae", []),
        ("text_encoder", "umt5", []),
    ):
        argv = [f"--model={kind}", f"--output={tmp_path / name}", "--source", files[name], *more]
        assert convert(argv) == 0
    ours = {name: str(tmp_path / name) for name in ("transformer", "vae", "text_encoder")}
    found = []
    for paths in (files, files | ours | {"lora": ""}):
        config, _ = parse_arguments(with_files(paths, dtype="float32", embeddings=""))
        settings = LongLiveMode(config).settings
        assert settings.model_type == "lora"
        mesh = sampling_mesh(settings)
        transformer = models.load_transformer(settings, mesh)
        decoder = vae_keys.load_or_draw(settings.models, settings.vae, mesh)
        found.append((transformer, decoder, models.embed(settings, ["A tram."])))
    jax.tree.map(np.testing.assert_array_equal, *found)
    config, _ = parse_arguments(with_files(files, transformer=ours["transformer"]))
    with pytest.raises(ValueError, match=r"has a LoRA merged in already: set models\.lora=''"):
        LongLiveMode(config)
