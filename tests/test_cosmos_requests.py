"""Requests made of specs: rates, lengths and given frames that fit, what is told, file names."""

import json

import pytest
from small_multiview import BOTH, ROOT, config, sample, views, write_all, write_videos

from jaxvid.core.config import load_config, override
from jaxvid.cosmos import spec
from jaxvid.cosmos.mode import CosmosMode
from jaxvid.cosmos.requests import arguments
from jaxvid.cosmos.spec import entries, parse


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("spec"))


def requests(folder, value, **changes):
    path = folder / "run.json"
    path.write_text(json.dumps(value))
    settings = config(sampling__specs=f"('{path}',)", **changes)
    return CosmosMode(settings).requests()


def refused(folder, value, message, **changes):
    with pytest.raises(ValueError, match=message) as error:
        requests(folder, value, **changes)
    assert "\n" not in str(error.value)


def test_prompt_files_are_found_beside_a_prompt(folder, monkeypatch):
    monkeypatch.chdir("/")
    (folder / "other.txt").write_text("Fog.")
    value = sample(prompt=None, prompt_path="other.txt")
    (request,) = requests(folder, value, overrides__prompt="Snow.")
    assert request.options["prompt"] == "Snow."
    assert request.inputs["prompt"] == str(folder / "other.txt")
    with pytest.raises(ValueError, match=r"prompt_path=.*no such file"):
        parse(sample(prompt_path="nowhere.txt"), folder)


def test_a_name_that_occurs_twice_spoils_the_later_sample(folder):
    first, second = requests(folder, [sample(), sample()])
    assert not first.error
    twice = "run.json item 2: its id 'clip' is that of run.json item 1, too: give it another name"
    assert second.error == twice


@pytest.mark.parametrize(("fps", "every", "frames"), [(10, 3, 5), (15, 2, 7), (30, 1, 15)])
def test_the_rate_is_that_of_the_spec(tmp_path, fps, every, frames):
    videos = write_videos(tmp_path, BOTH, frames=16, fps=30)
    value = sample(views=videos, fps=fps, enable_autoregressive=True, num_chunks=9)
    (request,) = requests(tmp_path, value)
    assert request.options["fps"] == fps and request.options["every"] == every
    assert request.options["frames"] == frames  # 5, 8 and 16 are there, chunks of 3 share 1


def test_videos_that_do_not_go_together(tmp_path):
    one = write_videos(tmp_path, ["front_wide"])
    for other, message in (
        ({"fps": 30}, "front_wide.control_path has 10 frames per second, rear.control_path 30"),
        ({"size": (16, 48)}, "is 32x16, rear.control_path 48x16: .*mixed_videos=allow"),
        ({"frames": 9}, "has 7 frames, rear.control_path 9: .*mixed_videos=allow"),
    ):
        mixed = one | write_videos(tmp_path, ["rear"], **other)
        refused(tmp_path, sample(views=mixed), message)
        if "fps" not in other:
            (request,) = requests(tmp_path, sample(views=mixed), sampling__mixed_videos="allow")
            assert not request.error


def test_rates_and_lengths_that_do_not_fit(tmp_path):
    videos = write_videos(tmp_path, BOTH, frames=8, fps=30)
    refused(tmp_path, sample(views=videos, fps=7), "fps=7 does not divide the files' 30: use fps=1")
    message = "8 frames, 2 at fps=10, but a chunk takes 3: give 9 of the 30 per second"
    refused(tmp_path, sample(views=videos), message)
    long = {"enable_autoregressive": True, "views": write_videos(tmp_path, BOTH, frames=9)}
    settings = {"sampling__latent_frames": 4}
    refused(tmp_path, sample(**long, chunk_overlap=2), "use 1 or 3", **settings)
    refused(tmp_path, sample(**long, chunk_overlap=7), "less than the 7 frames", **settings)
    (request,) = requests(tmp_path, sample(**long, chunk_overlap=2), **settings,
                          sampling__upstream_faults=True)  # fmt: skip
    assert request.options["overlap"] == 2


def test_a_view_without_control_is_told(folder):
    value = sample(cross_left={"input_path": "input_cross_left_7_10_32.mp4"})
    refused(folder, value, "cross_left has an input_path and no control_path")
    (request,) = requests(folder, value, sampling__upstream_faults=True)
    assert list(request.options["views"]) == list(BOTH)


def test_chunks_are_clamped_or_as_many_as_there_are(tmp_path):
    videos = write_videos(tmp_path, BOTH, frames=8)
    value = sample(views=videos, enable_autoregressive=True, num_chunks=9)
    (request,) = requests(tmp_path, value)
    assert request.options["chunks"] == 3 and request.options["frames"] == 7
    assert "num_chunks=9, the controls last for 3" in request.options["notes"]
    whole = {"sampling__whole_controls": True}
    (request,) = requests(tmp_path, value | {"num_chunks": 1}, **whole)
    assert request.options["chunks"] == 3
    assert request.options["notes"] == [
        *("num_chunks=1, the controls last for 3", "1 frames of the controls are left over")
    ]
    (request,) = requests(tmp_path, value, overrides__num_chunks=2, **whole)
    assert request.options["chunks"] == 2
    refused(tmp_path, sample(views=videos), "whole_controls=True makes chunks, this", **whole)
    (request,) = requests(tmp_path, sample(views=videos))
    assert request.options["notes"] == ["5 frames of the controls are left over"]


def test_given_frames_that_latents_cannot_hold(folder):
    value = sample(views=views(*BOTH, inputs=BOTH), num_conditional_frames=2)
    settings = {"sampling__latent_frames": 3}
    refused(folder, value, "num_conditional_frames=2 cannot be .*: use 1 or 3", **settings)
    (request,) = requests(folder, value, **settings, sampling__upstream_faults=True)
    assert "latents hold 1 of them" in request.options["notes"][0]


def test_input_videos_that_nothing_reads_are_told(folder):
    (request,) = requests(folder, sample(views=views(*BOTH, inputs=BOTH)))
    assert "input videos are not looked at" in request.options["notes"][0]


def test_an_input_as_short_as_its_own_frames(tmp_path):
    """All inputs are read as far as the one with the most given frames."""
    both = write_videos(tmp_path, BOTH)
    for name, frames, count in (("front_wide", 7, 5), ("rear", 3, 1)):
        both[name] |= write_videos(tmp_path, [name], frames=frames, kind="input")[name]
        both[name]["num_conditional_frames_per_view"] = count
    value = sample(views=both, enable_autoregressive=True)
    settings = {"sampling__latent_frames": 4, "sampling__mixed_videos": "allow"}
    refused(tmp_path, value, "rear.input_path has 3 frames, 5 given ones", **settings)


def test_seeds_of_upstreams_noise(folder):
    value = sample(seed=-1)
    assert not requests(folder, value)[0].error
    refused(folder, value, "seed=-1: .*from 0 to 4294967295", sampling__upstream_ranks=1)


def test_too_many_given_frames(folder):
    both = views(*BOTH, inputs=BOTH)
    value = sample(views=both, num_conditional_frames=5)
    refused(folder, value, "front_wide begins with 5 given frames, a chunk has 3")


def test_a_long_prompt_is_refused_or_cut(folder):
    value = sample(prompt="wet road " * 400)
    refused(folder, value, "longer than 512 tokens.*long_prompts=cut")
    (request,) = requests(folder, value, sampling__long_prompts="cut")
    assert "cut" in request.options["notes"][-1]


def test_one_bad_sample_of_several_fails_alone(folder):
    path = folder / "run.jsonl"
    lines = [sample(name="good"), sample(name="bad", fps=3)]
    path.write_text("\n".join(map(json.dumps, lines)))
    found = CosmosMode(config(sampling__specs=f"('{path}',)")).requests()
    assert [bool(request.error) for request in found] == [False, True]
    assert "fps=3 does not divide" in found[1].error
    assert found[1].options == {"safety": {"prompt": "off", "video": "off"}}


def test_the_arguments_are_saved_as_upstream_saves_them(folder):
    value = sample(views=views(*BOTH, inputs=BOTH), negative_prompt="ugly")
    (request,) = requests(folder, value)
    saved = arguments(request)
    fields = {field.name for field in spec.dataclasses.fields(spec.Spec)}
    assert set(saved) == fields
    assert saved["rear"]["input_path"] == str(folder / "input_rear_7_10_32.mp4")
    assert parse(saved, folder).views == parse(value, folder).views


def test_names_of_files(folder):
    (request,) = requests(folder, sample(save_combined_views=False), sampling__files="()")
    assert request.outputs == {
        "arguments": "clip/clip.json",
        "front_wide": "clip/clip_front_wide.mp4",
        "rear": "clip/clip_rear.mp4",
        "grid": "clip/clip_grid.mp4",
    }
    (request,) = requests(folder, sample(), sampling__files="()", sampling__layout="flat")
    assert request.outputs == {"arguments": "clip.json", "combined": "clip.mp4"}


def test_the_shipped_specs_are_good(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in ("data/multiview/crossing.json", "data/multiview/crossing_long.json"):
        (found,) = entries([path])
        assert not found.error and len(found.spec.views) == 7


def test_the_cross_view_variant_makes_its_spec(monkeypatch):
    """At its own sizes, with a network for three cameras."""
    monkeypatch.chdir(ROOT)
    found = load_config("configs/cosmos_multiview.py:cross_view")
    tokens = "text.tokenizer=data/tokenizer_qwen"
    three = ("network.views=3", "network.neighbours=((1, 2), (0, 2), (0, 1))")
    override(found, ["models.random=True", "text.random=True", tokens, *three])
    (request,) = CosmosMode(found).requests()
    assert list(request.options["views"]) == ["front_wide", "cross_right", "rear_right"]
    assert request.options["frames"] == 93 and not request.options["notes"]
