"""What LongLive is asked for: rows of prompt files, upstream's configs."""

import dataclasses
import json

import pytest
import small_longlive
import yaml

from jaxvid.core.config import parse_arguments
from jaxvid.longlive.mode import LongLiveMode
from jaxvid.longlive.rollout import RolloutConfig
from jaxvid.longlive.sample_config import SampleConfig
from jaxvid.longlive.sources import Item, items
from jaxvid.longlive.upstream import KEYS, yaml_overrides
from jaxvid.runs.requests import check_requests

ROOT = small_longlive.ROOT


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
        ('{"video_path": "", "prompt1": "a", "prompt2": "b"}', "'video_path' is ''"),
        ('{"video_path": "a\\u0000", "prompt1": "a", "prompt2": "b"}', "'video_path' is 'a"),
        (f'{{"video_path": "{"a" * 5000}", "prompt1": "a", "prompt2": "b"}}', "name too long"),
        ("[" * 100_000, "nested too deeply"),
        ('{"prompts": ["a", "b"], "switch_frame_indices": [-3]}', "have to rise, from 1 at least"),
        ('{"text": "a"}', "unknown field 'text'; known: prompts"),
        ('{"prompts": ["a"], "seed": "1"}', "'seed' is '1', it has to be a whole number"),
        ('{"prompts": ["a"], "id": 3.5}', "'id' is 3.5, it has to be a text"),
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
    assert f"{path} line 4: its id 'tram%2Fnight-0' is that of {path} line 1" in twice.error
    assert mode.plan([first, plain]).frames[0].produced == 9


def test_rows_whose_names_meet_fail_alone(tmp_path):
    path, changes = tmp_path / "rows.jsonl", {"sampling__switch_frames": "()"}
    rows = [{"prompts": ["a"], "id": "video_0001"}, {"prompts": ["b"]}, {"prompts": ["a"]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    changes["sampling__prompts"] = str(path)
    by_id = LongLiveMode(small_longlive.config(**changes)).requests()
    by_prompt = LongLiveMode(small_longlive.config(**changes, sampling__names="prompt")).requests()
    for found, broken in ((by_id, [False, True, False]), (by_prompt, [False, True, True])):
        check_requests(found)
        assert [bool(request.error) for request in found] == broken
    assert by_id[1].error.endswith("give it another id or prompt, or set sampling.names=index")
    assert f"its file 'rank0-a-0.mp4' is that of {path} line 1" in by_prompt[2].error


def test_a_byte_order_mark_and_blank_lines(tmp_path):
    text = '\ufeff{"prompts": ["a"]}\n\n \r\n{"prompts": [""]}\n\n'
    good, bad = listed(tmp_path, "a.jsonl", text)
    assert good == Item(("a",)) and "a.jsonl line 4: the prompt is empty" in bad.error
    with pytest.raises(ValueError, match="is empty: give at least one line"):
        listed(tmp_path, "b.jsonl", "\n \n")


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
