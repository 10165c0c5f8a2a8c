"""Multiview specs and upstream's command line: what is read, and each mistake in one line."""

import json

import pytest
from small_multiview import BOTH, ROOT, sample, views, write_all, write_spec

from jaxvid.core.config import parse_arguments
from jaxvid.core.views import CAMERAS, VIEWS
from jaxvid.cosmos.flags import multiview_overrides
from jaxvid.cosmos.spec import Overrides, entries, parse
from jaxvid.scenario.multiview import multiview_spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("spec"))


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
    lists.write_text("\ufeff" + json.dumps([sample(name="a"), sample(name="b", fps=0)]))
    lines = folder / "lines.jsonl"
    lines.write_text("\n" + json.dumps(sample(name="c")) + "\n \n{\n\n" + "[" * 10**5 + "\n")
    found = entries([str(lists), str(lines)])
    assert [entry.name for entry in found] == ["a", "b", "c", "sample_0003", "sample_0004"]
    assert [bool(entry.spec) for entry in found] == [True, False, True, False, False]
    assert found[1].error.startswith("list.json item 2: fps=0")
    assert found[3].error.startswith("lines.jsonl line 4 is no JSON")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "", "has to end in .json or .jsonl"),
        ("missing.json", None, "cannot be read: No such file"),
        ("latin.json", b"\xff", "it is not UTF-8"),
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
        ("-i a.json -o b --experiment mine", "--experiment=mine is none of .*models.settings"),
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
