"""Clips and prompts as samples: what is found, named, reported, translated."""

import json
import os
from pathlib import Path

import pytest

from jaxvid.core.views import CAMERAS, VIEWS
from jaxvid.cosmos.base_parameters import read_base
from jaxvid.cosmos.multirun import MultirunConfig, find_clips, left_out, samples
from jaxvid.cosmos.spec import Overrides
from jaxvid.runs.names import original


@pytest.fixture
def drive(tmp_path):
    """`drive(uid, prompts, without=..., prefix=...)` adds a clip, with prompts as JSON or text."""

    def add(uid, prompts=None, without=(), prefix="ftheta_", folder="controls"):
        for view, camera in CAMERAS.items():
            path = tmp_path / folder / f"{prefix}{camera}"
            path.mkdir(parents=True, exist_ok=True)
            if view not in without:
                (path / f"{uid}.mp4").write_bytes(b"video")
        (tmp_path / "prompts").mkdir(exist_ok=True)
        if prompts is not None:
            text = prompts if isinstance(prompts, str) else json.dumps(prompts)
            (tmp_path / "prompts" / f"{uid}.json").write_text(text)

    return add


def listed(root: Path, overrides=Overrides(), **fields):  # noqa: B008
    folders = {"controls": str(root / "controls"), "prompts": str(root / "prompts")}
    return samples(MultirunConfig(**folders | fields), overrides)


def skipped(root: Path, **fields) -> list[str]:
    folders = {"controls": str(root / "controls"), "prompts": str(root / "prompts")}
    return left_out(MultirunConfig(**folders | fields))


def test_every_clip_with_every_prompt(drive, tmp_path):
    drive("b", {"night rain": "A wet road.", "sun": "A dry road."})
    drive("a", {"sun": "Sun."}, prefix="")
    (tmp_path / "controls" / "notes.txt").write_text("x")
    found = listed(tmp_path)
    assert [s.name for s in found] == ["a_sun", "b_night rain", "b_sun"]
    assert not any(s.error or s.notes for s in found)
    spec = found[1].spec
    assert spec.prompt == "A wet road." and spec.prompt_path is None and spec.fps == 10
    assert tuple(spec.views) == VIEWS
    for view, camera in CAMERAS.items():
        path = str(tmp_path / "controls" / f"ftheta_{camera}" / "b.mp4")
        assert (spec.views[view].control_path, spec.views[view].input_path) == (path, path)
    assert "ftheta" not in found[0].spec.rear.control_path
    assert [s.name for s in listed(tmp_path, uids=("a",))] == ["a_sun"]
    assert listed(tmp_path, Overrides(seed=7))[0].spec.seed == 7
    with pytest.raises(ValueError, match="no camera folder has c"):
        listed(tmp_path, uids=("c",))


def test_uids_are_those_of_all_cameras(drive, tmp_path):
    drive("front", {"x": "X."}, without=VIEWS[1:])
    drive("tele", {"x": "X."}, without=VIEWS[:-1])
    drive("whole", {"x": "X."})
    drive("lonely")
    front, lonely, tele, whole = listed(tmp_path)
    assert list(front.spec.views) == ["front_wide"] and list(tele.spec.views) == ["front_tele"]
    assert "camera_front_tele_30fov" in front.notes[0] and not whole.notes
    assert "no prompt file" in lonely.error and lonely.name == "lonely"
    front, lonely, tele, whole = listed(tmp_path, missing="fail")
    assert "no front.mp4 in camera_cross_right_120fov" in front.error
    assert tele.error and lonely.error and not whole.error


def test_what_is_skipped_is_told_and_no_failure(drive, tmp_path):
    drive("front", {"x": "X."}, without=VIEWS[1:])
    drive("lonely")
    drive("whole", {"x": "X."})
    assert [s.name for s in listed(tmp_path, missing="skip")] == ["whole_x"]
    front, lonely = skipped(tmp_path, missing="skip")
    assert "front is left out" in front and "in camera_cross_right_120fov" in front
    assert "lonely is left out" in lonely and "no prompt file" in lonely
    assert not skipped(tmp_path)
    assert skipped(tmp_path, missing="skip", uids=("lonely",)) == [lonely]


def test_the_views_that_are_expected(drive, tmp_path):
    drive("six", {"x": "X."}, without=("front_tele",))
    drive("tele", {"x": "X."}, without=VIEWS[:-1])
    six = VIEWS[:-1]
    (sample,) = listed(tmp_path, missing="skip", views=six[::-1])
    assert tuple(sample.spec.views) == six and not sample.notes and sample.uid == "six"
    with pytest.raises(ValueError, match=r"multirun\.views: 'read'; did you mean rear"):
        listed(tmp_path, views=("read",))


def test_broken_clips_and_keys_have_names_of_their_own(drive, tmp_path):
    drive("a", {"x": "X.", "": "X.", " ": "X."})
    drive("a_x")
    found = listed(tmp_path)
    assert [s.name for s in found] == ["a_x", "a_", "a_%20", "a%5Fx"]
    assert [bool(s.error) for s in found] == [False, True, False, True]


def test_names_do_not_depend_on_what_is_chosen(drive, tmp_path):
    drive("a", {"b_c": "X."})
    drive("a_b", {"c": "X."})
    every = [sample.name for sample in listed(tmp_path)]
    assert every == [s.name for uid in ("a", "a_b") for s in listed(tmp_path, uids=(uid,))]
    assert len(set(every)) == 2


def test_files_of_other_systems(drive, tmp_path):
    drive("a", "\ufeff" + json.dumps({"x": "X."}))
    drive("a", folder="inputs", without=VIEWS[1:])
    for folder in ("controls", "inputs"):
        path = tmp_path / folder / f"ftheta_{CAMERAS['front_wide']}" / "a.mp4"
        path.rename(path.with_suffix(".MP4"))
    (sample,) = listed(tmp_path, inputs=str(tmp_path / "inputs"))
    assert sample.spec.prompt == "X." and tuple(sample.spec.views) == VIEWS
    assert sample.spec.front_wide.input_path.endswith("a.MP4")
    assert "inputs" in sample.spec.front_wide.input_path


def test_each_prompt_is_checked(drive, tmp_path):
    drive("a", {"x": "X.", "half": "\ud800"})
    good, bad = listed(tmp_path)
    assert not good.error and "a_half: prompt=" in bad.error and bad.spec is None


def test_inputs_where_there_are_some(drive, tmp_path):
    drive("a", {"x": "X."})
    drive("a", without=("rear",), folder="inputs", prefix="")
    (sample,) = listed(tmp_path, inputs=str(tmp_path / "inputs"))
    assert "inputs/camera_front_wide" in sample.spec.front_wide.input_path
    assert sample.spec.rear.input_path == sample.spec.rear.control_path
    assert sample.notes == ("no input video of camera_rear_tele_30fov: its control serves",)


@pytest.mark.parametrize(
    ("prompts", "cause"),
    [
        ("{", "no JSON"),
        ("[1]", "it has to be an object"),
        ("{}", "has no prompts"),
        ('{"x": ""}', "the prompt is empty"),
        ('{"x": 3}', "is not a text"),
        ('{"x": "a", "x": "b"}', "occurs twice"),
        ('{"": "a"}', "needs a name"),
        (b"\xff".decode("latin-1"), "no JSON"),
    ],
)
def test_bad_prompts_spoil_their_own_run(drive, tmp_path, prompts, cause):
    drive("a", prompts)
    drive("b", {"x": "X."})
    bad, good = listed(tmp_path)
    assert cause in bad.error and len(bad.error.splitlines()) == 1 and bad.spec is None
    assert not good.error


def test_awkward_keys_become_names_that_tell_them_apart(drive, tmp_path):
    keys = ["../../x", "a/b", ".", "two\nlines", "k" * 300, "k" * 301, "夜", "a b"]
    drive("uid", dict.fromkeys(keys, "X."))
    drive("u", {"id_x": "X."})
    drive("u_id", {"x": "X."})
    found = listed(tmp_path)
    assert not any(s.error for s in found) and len({s.name for s in found}) == len(found)
    names = {s.variant: s.name for s in found if s.uid == "uid"}
    assert names["夜"] == "uid_夜" and names["a b"] == "uid_a b"
    for key, name in names.items():
        assert "/" not in name and len(name.encode()) < 255
        assert len(key) > 200 or original(name) == f"uid_{key}"
    assert {"u_id%5Fx", "u_id_x"} <= {s.name for s in found}


def test_base_parameters(drive, tmp_path):
    drive("a", {"x": "X."})
    params = tmp_path / "base.json"
    base = {"seed": 3, "fps": 15, "prompt": "not this", "prompt_path": "nor.txt", "name": "base"}
    params.write_text(json.dumps(base | {"rear": {"num_conditional_frames_per_view": 5}}))
    (sample,) = listed(tmp_path, params=str(params))
    assert sample.spec.seed == 3 and sample.spec.fps == 15 and sample.spec.prompt == "X."
    assert sample.spec.rear.num_conditional_frames_per_view == 5 and sample.name == "a_x"


OLD = {
    "output_dir": "outputs",
    "seed": 2025,
    "guidance": 3,
    "n_views": 7,
    "num_conditional_frames": 2,
    "enable_autoregressive": True,
    "chunk_overlap": 1,
    "num_video_frames_per_view": 29,
    "num_video_frames_loaded_per_view": 85,
    "num_conditional_frames_per_view": {"rear": 1, "front_wide": 2},
    "no_cond_rear_tele": True,
    "minimum_start_index": 3,
}


def test_keys_of_the_older_tool_are_translated(tmp_path):
    file = tmp_path / "old.json"
    file.write_text(json.dumps(OLD))
    value, notes = read_base(str(file))
    assert value == {
        "seed": 2025,
        "guidance": 3,
        "num_conditional_frames": 5,  # two latent frames
        "enable_autoregressive": True,
        "chunk_overlap": 1,
        "num_chunks": 3,
        "rear": {"num_conditional_frames_per_view": 1},
        "front_wide": {"num_conditional_frames_per_view": 5},
    }
    assert len(notes) == 2 and "no_cond_rear_tele" in notes[0] and "minimum_start" in notes[1]


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("{", "no JSON"),
        ("[]", "one JSON object"),
        ('{"sed": 1}', "did you mean seed"),
        ('{"rear": null}', "rear has to be an object"),
        ('{"rear": "a.mp4"}', "rear has to be an object"),
        ('{"seed": "x"}', "spec.seed"),
        (
            '{"n_views": 7, "rear": null, "num_conditional_frames_per_view": {"rear": 1}}',
            "rear has",
        ),
        ('{"num_conditional_frames_per_view": [1]}', "has to be an object from views"),
        (json.dumps(OLD | {"num_video_frames_loaded_per_view": 86}), "is no 1 \\+ n"),
        (json.dumps(OLD | {"num_conditional_frames": 1.5}), "number of latent frames"),
        (json.dumps(OLD | {"num_conditional_frames_per_view": {"read": 1}}), "did you mean rear"),
    ],
)
def test_bad_base_parameters_are_one_line(tmp_path, content, cause):
    file = tmp_path / "base.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=cause) as error:
        read_base(str(file))
    assert len(str(error.value).splitlines()) == 1


def listed_at(folder: Path):
    return find_clips(MultirunConfig(controls=str(folder), prompts=str(folder)))


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"multirun\.controls='nowhere' is not a folder"):
        MultirunConfig(controls="nowhere", prompts=str(tmp_path))
    with pytest.raises(ValueError, match=r"multirun\.prompts='' is not a folder"):
        MultirunConfig(controls=str(tmp_path))
    with pytest.raises(ValueError, match=r"multirun\.controls is empty"):
        MultirunConfig(prompts=str(tmp_path))
    with pytest.raises(ValueError, match="no camera folder"):
        listed_at(tmp_path)
    os.makedirs(tmp_path / "ftheta_camera_rear_tele_30fov")
    with pytest.raises(ValueError, match=r"no \.mp4 in its camera folders"):
        listed_at(tmp_path)
