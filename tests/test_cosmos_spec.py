"""Spec files of multiview samples: what is read, and each mistake in one line."""

import json

import pytest
from small_multiview import ROOT, config, write_spec, write_videos

from jaxvid.core.config import load_config, override, parse_arguments
from jaxvid.core.views import CAMERAS, VIEWS
from jaxvid.cosmos import spec
from jaxvid.cosmos.flags import multiview_overrides
from jaxvid.cosmos.mode import CosmosMode
from jaxvid.cosmos.requests import arguments
from jaxvid.cosmos.spec import Overrides, entries, parse
from jaxvid.scenario.multiview import multiview_spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("spec")
    write_videos(found)
    write_videos(found, kind="input")
    return found


def views(*names, inputs=(), **more) -> dict:
    """Part of a spec: control videos, and input videos of some views."""
    found = {n: {"control_path": f"control_{n}_7_10_32.mp4"} | more for n in names}
    for name in inputs:
        found[name]["input_path"] = f"input_{name}_7_10_32.mp4"
    return found


BOTH = ("front_wide", "rear")


def sample(**changes) -> dict:
    base = {"name": "clip", "prompt": "A road.", "num_conditional_frames": 0}
    return base | (views(*BOTH) if "views" not in changes else changes.pop("views")) | changes


def test_defaults_are_upstreams(folder):
    found = parse(sample(num_conditional_frames=1, views=views(*BOTH, inputs=BOTH)), folder)
    assert (found.seed, found.guidance, found.control_weight, found.fps) == (0, 3, 1.0, 10)
    assert (found.num_steps, found.num_chunks, found.chunk_overlap) == (35, 2, 1)
    assert found.save_combined_views and not found.enable_autoregressive
    assert found.given == (1, 1)


def test_views_come_in_the_order_of_their_ids(folder):
    found = parse(sample(views=views("rear", "front_tele", "front_wide")), folder)
    assert list(found.views) == ["front_wide", "rear", "front_tele"]


def test_a_view_without_control_is_not_active(folder):
    found = parse(sample(cross_left={"input_path": "input_cross_left_7_10_32.mp4"}), folder)
    assert list(found.views) == list(BOTH)


def test_paths_are_relative_to_the_file(folder, monkeypatch):
    monkeypatch.chdir("/")
    (folder / "prompt.txt").write_text("  A wet road.\n")
    path = write_spec(folder, views(*BOTH), prompt=None, prompt_path="prompt.txt")
    (found,) = entries([str(path)])
    assert found.spec.prompt == "A wet road."
    assert found.spec.rear.control_path == str(folder / "control_rear_7_10_32.mp4")


def test_per_view_counts_are_those_of_long_videos_only(folder):
    both = views(*BOTH, inputs=BOTH, num_conditional_frames_per_view=5)
    assert parse(sample(views=both, enable_autoregressive=True), folder).given == (5, 5)
    assert parse(sample(views=both), folder).given == (0, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidanc": 3}, "spec.guidanc is not a field; did you mean guidance"),
        ({"n_views": 7}, "n_views is a key of older versions"),
        ({"rear": {"control": "a.mp4"}}, "spec.rear.control is not a field"),
        ({"rear": "a.mp4"}, "rear has to be an object"),
        ({"name": None}, "spec.name=None is NoneType"),
        ({"name": "a/b"}, "has to be a file name"),
        ({"seed": "one"}, "spec.seed='one' is str"),
        ({"guidance": 8}, "guidance=8 must be from 0 to 7"),
        ({"guidance": 2.5}, "spec.guidance=2.5 is float"),
        ({"control_weight": 1.5}, "control_weight=1.5 must be from 0 to 1"),
        ({"fps": 0}, "fps=0 must be from 1 to 1000"),
        ({"num_steps": 0}, "num_steps=0 must be from 1 to 1000"),
        ({"num_chunks": 0}, "num_chunks=0 must be at least 1"),
        ({"chunk_overlap": -1}, "chunk_overlap=-1 must be at least 0"),
        ({"num_conditional_frames": -1}, "num_conditional_frames=-1 must be at least 0"),
        ({"save_combined_views": "no"}, "spec.save_combined_views='no' is str"),
        ({"views": {}}, "no view is active"),
        ({"num_conditional_frames": 1}, "front_wide, rear: input_path is missing"),
        (
            {"num_conditional_frames": 1, "views": views(*BOTH, inputs=["rear"])},
            "^front_wide: input_path is missing",
        ),
        ({"num_conditional_frames": 1, "enable_autoregressive": True}, "input_path is missing"),
        ({"prompt": None}, "there is no prompt"),
        ({"prompt": "  "}, "there is no prompt"),
        ({"prompt": None, "prompt_path": "nowhere.txt"}, "prompt_path=.*no such file"),
        (
            {"rear": {"control_path": "nowhere.mp4"}},
            "rear.control_path=.*/nowhere.mp4: there is no",
        ),
        ({"rear": {"control_path": "."}}, "there is no such file"),
        ({"rear": {"num_conditional_frames_per_view": 6}}, "=6 is outside 0 to 5"),
        ({"rear": {"control_path": "~nobody_here/a.mp4"}}, "rear.control_path=.* is no path"),
        ({"rear": {"control_path": "a" * 5000}}, "rear.control_path=.* is no path"),
        ({"prompt": "\ud800"}, "half a surrogate pair"),
        ({"name": "../a"}, "name='../a' has to be a file name"),
        ({"name": "index.html"}, "name='index.html' has to be a file name"),
    ],
)
def test_mistakes_are_named(folder, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        parse(sample(**changes), folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((2, 2), "takes 0, 1 or 5"),
        ((1, 0), "rear.num_conditional_frames_per_view is 0"),
        ((1, 5), ""),
    ],
)
def test_given_frames_of_long_videos(folder, counts, message):
    both = views(*BOTH, inputs=BOTH)
    for name, count in zip(BOTH, counts, strict=True):
        both[name]["num_conditional_frames_per_view"] = count
    value = sample(views=both, enable_autoregressive=True)
    if not message:
        assert parse(value, folder).given == counts
        return
    with pytest.raises(ValueError, match=message):
        parse(value, folder)


def test_lists_and_lines(folder):
    lists = folder / "list.json"
    lists.write_text(json.dumps([sample(name="a"), sample(name="b", fps=0)]))
    lines = folder / "lines.jsonl"
    lines.write_text("\n" + json.dumps(sample(name="c")) + "\n \n{\n\n" + "[" * 10**5 + "\n")
    found = entries([str(lists), str(lines)])
    assert [entry.name for entry in found] == ["a", "b", "c", "sample_0003", "sample_0004"]
    assert [bool(entry.spec) for entry in found] == [True, False, True, False, False]
    assert found[1].error.startswith("list.json: fps=0")
    assert found[3].error.startswith("lines.jsonl line 4 is no JSON")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "", "has to end in .json or .jsonl"),
        ("missing.json", None, "cannot be read: No such file"),
        ("latin.json", b"\xff", "it is not UTF-8"),
        ("twice.json", json.dumps([sample(), sample()]), "name='clip' occurs twice"),
    ],
)
def test_files_that_are_no_spec(folder, name, text, message):
    if text is not None:
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        entries([str(folder / name)])


def test_overrides_replace_the_values_of_every_sample(folder):
    given = Overrides(seed=5, prompt="Snow.", fps=5, save_combined_views=False)
    found = parse(sample(), folder, given)
    assert (found.seed, found.prompt, found.fps) == (5, "Snow.", 5)
    assert not found.save_combined_views


def test_prompt_files_are_found_beside_a_prompt(folder, monkeypatch):
    monkeypatch.chdir("/")
    (folder / "other.txt").write_text("Fog.")
    value = sample(prompt=None, prompt_path="other.txt")
    (request,) = requests(folder, value, overrides__prompt="Snow.")
    assert request.options["prompt"] == "Snow."
    assert request.inputs["prompt"] == str(folder / "other.txt")
    with pytest.raises(ValueError, match=r"prompt_path=.*no such file"):
        parse(sample(prompt_path="nowhere.txt"), folder)


def test_an_overriding_prompt_file_yields_to_a_prompt_in_the_spec(folder):
    (folder / "other.txt").write_text("Fog.")
    given = Overrides(prompt_path="other.txt")
    assert parse(sample(), folder, given).prompt == "A road."
    assert parse(sample(prompt=None), folder, given).prompt == "Fog."


def test_the_spec_of_the_renderer_is_read(folder):
    videos = {camera: f"control_{view}_7_10_32.mp4" for view, camera in CAMERAS.items()}
    value, notes = multiview_spec("drive", videos, 10, 100)
    found = parse(value, folder)
    assert list(found.views) == list(VIEWS) and not notes


def requests(folder, value, **changes):
    path = folder / "run.json"
    path.write_text(json.dumps(value))
    settings = config(sampling__specs=f"('{path}',)", **changes)
    return CosmosMode(settings).requests()


@pytest.mark.parametrize(("fps", "every", "frames"), [(10, 3, 5), (15, 2, 7), (30, 1, 15)])
def test_the_rate_is_that_of_the_spec(tmp_path, fps, every, frames):
    videos = write_videos(tmp_path, BOTH, frames=16, fps=30)
    value = sample(views=videos, fps=fps, enable_autoregressive=True, num_chunks=9)
    (request,) = requests(tmp_path, value)
    assert request.options["fps"] == fps and request.options["every"] == every
    assert request.options["frames"] == frames  # 5, 8 and 16 are there, chunks of 3 share 1


def refused(folder, value, message, **changes):
    with pytest.raises(ValueError, match=message) as error:
        requests(folder, value, **changes)
    assert "\n" not in str(error.value)


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


def translated(line: str):
    argv = [word.replace("_", " ") if word[0] != "-" else word for word in line.split()]
    base = [f"--config={ROOT}/configs/cosmos_multiview.py:tiny"]
    return parse_arguments(multiview_overrides([*base, *argv]))


def test_upstreams_command_line():
    config, rest = translated(
        "-i a.json b.jsonl -o out --seed 7 --num-steps=12 --enable_autoregressive True --fps 15 "
        "--save-combined-views None --prompt A_wet_road. --disable-guardrails --guidance 2 "
        "--context-parallel-size 8 --config.sampling.limit=3 --plan"
    )
    assert config.sampling.specs == ("a.json", "b.jsonl") and config.run.output == "out"
    assert config.sampling.layout == "flat" and config.sampling.limit == 3
    found = {name: value for name, value in config.overrides.items() if value is not None}
    assert found == {
        "seed": 7, "num_steps": 12, "enable_autoregressive": True, "fps": 15, "guidance": 2,
        "prompt": "A wet road.",
    }  # fmt: skip
    assert rest == ["--plan"]


def test_texts_that_look_like_numbers():
    config, _ = translated("-i a.json -o out --prompt 2024 --negative-prompt (1,2)")
    assert (config.overrides.prompt, config.overrides.negative_prompt) == ("2024", "(1,2)")


def test_views_of_the_command_line_are_ignored_as_upstream(capsys):
    config, _ = translated("-i a.json -o out control:view-config --input-path x.mp4")
    assert config.sampling.specs == ("a.json",)
    assert "control:view-config: without effect" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-i a.json --seed 3", "-o .* is missing"),
        ("-i a.json --sed 3", "--sed is no flag of upstream's; did you mean seed"),
        ("-i a.json --seed", "--seed has no value"),
        ("-i -o out", "--input-files has no value"),
        ("-i a.json --model edge", "--model=edge is not auto/multiview"),
        ("-i a.json --no-disable-guardrails", "none are shipped"),
        ("control:view-config -o out", "-i .* is missing"),
    ],
)
def test_mistakes_in_the_command_line(line, message):
    with pytest.raises(ValueError, match=message):
        translated(line)


def test_other_command_lines_are_left_alone():
    argv = ["--config=a.py", "--seed", "3"]
    assert multiview_overrides(argv) == argv


def test_help_lists_every_flag(capsys):
    with pytest.raises(SystemExit):
        multiview_overrides(["control:view-config", "--help"])
    told = capsys.readouterr().out
    assert "-i, --input-files" in told and "--num-conditional-frames" in told
    assert "config.overrides.num_steps, 35 where" in told and "--control-path" in told
