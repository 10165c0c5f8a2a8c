"""What LongLive is asked for: prompts, frames in both units, upstream's configs, mistakes."""

import dataclasses
import json
import sys

import jax
import numpy as np
import pytest
import script
import small_longlive
import yaml

from jaxvid.core import program, torch_file
from jaxvid.core.config import parse_arguments
from jaxvid.core.mesh import MeshConfig
from jaxvid.core.video import write_video
from jaxvid.longlive import models, sample
from jaxvid.longlive.cost import forward_flops, frames_of, switch_starts
from jaxvid.longlive.memory import memory_parts, sampling_mesh
from jaxvid.longlive.mode import LongLiveMode
from jaxvid.longlive.requests import file_name
from jaxvid.longlive.rollout import RolloutConfig
from jaxvid.longlive.sample_config import Length, ModelConfig, SampleConfig, Settings
from jaxvid.longlive.sources import Item, items
from jaxvid.longlive.upstream import KEYS, yaml_overrides
from jaxvid.runs.requests import Request
from jaxvid.wan import vae_keys
from jaxvid.wan.dit import WanConfig
from jaxvid.wan.umt5 import Umt5Config
from jaxvid.wan.vae import VaeConfig

ROOT = small_longlive.ROOT
EVERY = jax.devices()


def release(**sampling) -> Settings:
    """The networks of the release, without files."""
    sampling = SampleConfig(prompt=("A tram.",), **sampling)
    shapes = (WanConfig(), VaeConfig(), Umt5Config())
    return Settings(sampling, RolloutConfig(), ModelConfig(), *shapes, MeshConfig(), "lora")


def planned(settings: Settings, given: int = 0, switch_frames=(), **options):
    length = settings.length(given)
    options |= {"given": given, "switch_frames": list(switch_frames)}
    return frames_of(settings, Request("a", 0, {}, options=options), length)


def test_frames_of_the_release():
    """Upstream's configs: 120 latent frames from text, 240 continuing a clip of 40 frames."""
    found = planned(release())
    assert (found.asked, found.rounded, found.produced) == (477, 477, 477)
    assert found.note == "120 latent; 40 blocks of 3 latent frames"
    clip = {"clip": {"frames": 300, "fps": 24.0}}
    found = planned(release(latent_frames=240), 10, **clip)
    assert (found.asked, found.rounded, found.produced) == (957, 961, 957)
    assert "37 of 40 frames of the clip are used, 10 latent (no multiple of 3" in found.note
    assert "24 frames per second count as 16" in found.note
    assert "77 blocks" in found.note and "the last 1 latent (4 pixel) frames are cut" in found.note


def test_switches_of_the_release():
    note = planned(release(latent_frames=240), switch_frames=(40, 80, 120, 160, 200)).note
    assert "prompt 2 from latent frame 42 (pixel frame 165) instead of 40" in note
    assert "prompt 4 from latent frame 120 (pixel frame 477)" in note
    length = Length(0, 12, 3, 4)
    assert switch_starts(length, (4, 5)) == [6, 9]  # at most one a block
    assert switch_starts(length, (9, 12)) == [9]
    assert (
        "prompt 3 never takes over"
        in planned(release(latent_frames=12), switch_frames=(9, 12)).note
    )


@pytest.mark.parametrize(("given", "latent", "blocks", "made"), [(0, 1, 1, 3), (4, 7, 1, 7),
                                                                 (4, 8, 2, 10)])  # fmt: skip
def test_the_last_block_is_made_whole(given, latent, blocks, made):
    length = Length(given, latent, 3, 4)
    assert (length.blocks, length.made) == (blocks, made)
    assert length.pixels == 4 * (latent - 1) + 1
    assert list(length.starts) == list(range(given, made, 3))


def test_flops_are_those_of_the_specification():
    """28.30 TFLOP a pass in steady state, of which 0.01 are left out here; 20.2 in the first."""
    assert forward_flops(WanConfig(), 4680, 18720) == pytest.approx(28.29e12, rel=1e-3)
    assert 5 * forward_flops(WanConfig(), 4680, 4680) == pytest.approx(81.0e12, rel=1e-2)


def test_memory_of_the_release(monkeypatch):
    """As compiled for an H200 (data/benchmarks/longlive_aot_h200.json), and weights not counted."""
    monkeypatch.setattr(jax, "devices", lambda *_: EVERY[:1])
    settings = release()
    half = dataclasses.replace(settings, vae=VaeConfig(dtype="bfloat16"))
    parts = memory_parts(half, half.length(0).made)
    report = json.loads((ROOT / "data/benchmarks/longlive_aot_h200.json").read_text())
    (compiled,) = [t for t in report["targets"] if t["target"] == "h200:1"]
    assert sum(parts.values()) / 1e9 == pytest.approx(compiled["together"]["total_gb"], rel=0.06)
    assert parts["weights"] == 2 * (1_418_996_800 + 126_892_531)
    keys = 2 * 30 * 1536 * (12 * 1560 + 512) * 2  # window and prompt, bfloat16
    assert parts["KV cache"] == pytest.approx(keys, rel=0.01)


def test_pixel_frames_may_be_asked_for():
    assert release(pixel_frames=81).length(0).latent == 21


@pytest.mark.parametrize(
    ("names", "item", "name"),
    [
        ("ids", Item(("A",)), "videos/video_0003-1.mp4"),
        ("index", Item(("A",)), "rank0-3-1_lora.mp4"),
        ("prompt", Item(("Salt/pepper: " + "x" * 200,)), f"rank0-Salt_pepper: {'x' * 87}-1.mp4"),
        ("prompt", Item(("first", "then this"), video="a.mp4"), "rank0-then_this-1.mp4"),
        ("prompt", Item(("海" * 100,)), f"rank0-{'海' * 75}-1.mp4"),
    ],
)
def test_file_names(names, item, name):
    assert file_name(release(names=names), 3, 1, item) == name


def listed(tmp_path, name: str, text: str, **more) -> list[Item]:
    (tmp_path / name).write_text(text)
    return items(SampleConfig(prompts=str(tmp_path / name), **more))


def test_rows_of_files(tmp_path):
    text = "A tram.\r\n\n  A dog.\n"
    first, empty, last = listed(tmp_path, "a.txt", text)
    assert first == Item(("A tram.",)) and last.prompts == ("  A dog.",)
    assert empty.error.endswith("a.txt line 2: the prompt is empty: say what is to be seen")
    assert len(listed(tmp_path, "a.txt", text, limit=1)) == 1
    (tmp_path / "clip.mp4").touch()
    rows = [
        {"prompts": ["a", "b"]},
        {"prompts": ["a", "b", "c"], "switch_frame_indices": [3, 9]},
        {"video_path": "clip.mp4", "prompt1": "a", "prompt2": "b"},
    ]
    found = listed(tmp_path, "b.jsonl", "\n".join(map(json.dumps, rows)), switch_frames=(40,))
    assert found == [
        Item(("a", "b"), (40,)),
        Item(("a", "b", "c"), (3, 9)),
        Item(("a", "b"), video=str(tmp_path / "clip.mp4")),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "no JSON"),
        ("[]", "a row has to be"),
        ('{"prompts": ["a"]}', "1 prompts need 0 switch_frames, not 1"),
        ('{"prompts": ["a", " "]}', "prompt 2 of 2 is empty"),
        ('{"prompts": "a"}', "has to be a list of texts"),
        ('{"prompts": ["a", "b"], "switch_frame_indices": ["4"]}', "a list of latent frames"),
        ('{"prompts": ["a", "b", "c"], "switch_frame_indices": [9, 3]}', "have to rise"),
        ('{"video_path": "a.mp4", "prompt1": "a"}', "the text 'prompt2' is missing"),
        ('{"video_path": "", "prompt1": "a", "prompt2": "b"}', "'video_path' is empty"),
        ('{"text": "a"}', "unknown field 'text'; known: prompts"),
        ('{"prompts": ["a"], "seed": "1"}', "'seed' is '1', it has to be a whole number"),
        ('{"prompts": ["a"], "id": 3}', "'id' is 3, it has to be a text"),
        ('{"prompts": ["a"], "frames": 0}', "'frames' is 0, it has to be at least 1"),
    ],
)
def test_a_wrong_row_says_what_is_wrong(tmp_path, row, message):
    (item,) = listed(tmp_path, "a.jsonl", row, switch_frames=(40,))
    assert item.error.startswith(f"{tmp_path}/a.jsonl line 1: ") and message in item.error
    assert "\n" not in item.error


def test_rows_with_a_seed_frames_and_an_id(tmp_path):
    rows = [
        {"prompts": ["a"], "seed": 7, "frames": 9, "id": "tram/night"},
        {"prompts": ["a"]},
        {"prompts": ["a"], "frames": 8},
        {"prompts": ["a"], "id": "tram/night"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    changes = {"sampling__prompts": str(path), "sampling__switch_frames": "()"}
    mode = LongLiveMode(small_longlive.config(**changes))
    first, plain, odd, twice = mode.requests()
    assert (first.id, first.seed) == ("tram%2Fnight-0", 7)
    assert first.outputs == {"video": "videos/tram%2Fnight-0.mp4"}
    assert first.options["frames"] == 9 and first.options["latent_frames"] < 8
    assert (plain.id, plain.seed, plain.options["latent_frames"]) == ("video_0001-0", 0, 8)
    assert "8" in odd.error
    assert "id 'tram/night' is that of line 1" in twice.error
    assert mode.plan([first, plain]).frames[0].produced == 9


ADAPTER = {"type": "lora", "rank": 256, "alpha": 256, "dropout": 0.0, "dtype": "bfloat16",
           "verbose": False}  # fmt: skip
UPSTREAM = {
    "denoising_step_list": [1000, 750, 500, 250], "warp_denoising_step": True,
    "num_frame_per_block": 3, "model_name": "Wan2.1-T2V-1.3B",
    "model_kwargs": {"local_attn_size": 12, "timestep_shift": 5.0, "sink_size": 3},
    "data_path": "prompts.jsonl", "output_folder": "videos/long", "inference_iter": -1,
    "num_output_frames": 240, "use_ema": False, "seed": 1, "num_samples": 1,
    "save_with_index": True, "context_noise": 0, "generator_ckpt": "base.pt",
    "lora_ckpt": "lora.pt", "adapter": ADAPTER,
}  # fmt: skip
OTHERS = {
    "t2v": {"num_output_frames": 120, "seed": 0, "global_sink": True},
    "interactive": {"switch_frame_indices": "40, 80,120", "global_sink": True},
    "video_conditional": {"num_conditioning_frames": 40},
}


def converted(tmp_path, content: dict, *argv: str):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(content))
    return parse_arguments(yaml_overrides([f"--upstream_config={file}", *argv]))[0]


@pytest.mark.parametrize("variant", OTHERS)
def test_upstream_configs(tmp_path, monkeypatch, variant, capsys):
    monkeypatch.chdir(ROOT)
    config = converted(tmp_path, UPSTREAM | OTHERS[variant])
    assert f"configs/longlive.py:{variant}" in capsys.readouterr().out
    assert config.rollout.to_dict() == dataclasses.asdict(RolloutConfig()) | {
        "global_sink": variant != "video_conditional"
    }
    switches = (40, 80, 120) if variant == "interactive" else ()
    assert config.sampling.switch_frames == switches
    assert config.sampling.latent_frames == OTHERS[variant].get("num_output_frames", 240)
    assert config.sampling.names == "index" and config.sampling.limit == 0
    assert config.models.lora == "lora.pt" and config.models.lora_rank == 256
    assert config.run.output == "videos/long"


def test_upstream_settings_give_way_to_ours(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    content = UPSTREAM | {"inference_iter": 0, "adapter": None, "save_with_index": False}
    content["model_kwargs"] = {"use_infinite_attention": True}
    config = converted(tmp_path, content, "--config.sampling.seed=7")
    assert (config.sampling.seed, config.sampling.limit, config.sampling.names) == (7, 1, "prompt")
    assert config.rollout.relative_rope and config.models.lora == ""
    rollout = config.rollout  # upstream's defaults of what the file leaves out
    assert (rollout.window, rollout.sink, rollout.shift, rollout.global_sink) == (-1, 0, 8.0, False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"num_output_frame": 3}, "num_output_frame is not a key of inference; did you mean"),
        ({"model_kwargs": {"sink": 3}}, "model_kwargs.sink is not a key"),
        ({"switch_frame_indices": "40, x"}, "switch_frame_indices: '40, x' is no value for it"),
    ],
)
def test_a_wrong_upstream_config(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        converted(tmp_path, content)


def test_the_readme_has_every_key():
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("| key of the YAML file |") :].split("\n\n")[0]
    for name, key in KEYS.items():
        (row,) = [line for line in table.split("\n") if f"`{name}`" in line]
        assert key.note or f"`{key.field}`" in row, name


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
