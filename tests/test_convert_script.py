"""scripts/convert.py: upstream's tensors come back bit for bit; bad input ends in one line."""

import collections
import json

import numpy as np
import pytest
from random_params import random_like
from script import convert

from jaxvid.core import checkpoint, torch_file
from jaxvid.core.files import sha256
from jaxvid.fdm import keys
from jaxvid.fdm.model import abstract_parameters
from jaxvid.fdm.unet import UNetConfig

ARGUMENTS = {"image_size": 32, "num_channels": 32, "num_res_blocks": 1, "dataset": "mazes"}


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """An FDM file of upstream's form with random tensors."""
    config = UNetConfig(image_size=32, channels=32, res_blocks=1, attention_at=(2, 4))
    params = random_like(abstract_parameters(config))
    tensors = {name: np.asarray(a) for name, a in keys.state_dict(params).items()}
    wrapped = collections.OrderedDict((n, torch_file.Parameter(a)) for n, a in tensors.items())
    path = tmp_path_factory.mktemp("upstream") / "ema_0.9999_000007.pt"
    torch_file.save_pt(path, {"state_dict": wrapped, "config": ARGUMENTS, "step": 7})
    return path


def test_there_and_back(upstream, tmp_path, capsys):
    ours, back = tmp_path / "ours", tmp_path / "back.pt"
    convert("--model=fdm", f"--source={upstream}", f"--output={ours}")
    assert capsys.readouterr().out == f"wrote the checkpoint {ours}\n"
    info = checkpoint.read_info(ours)
    assert info["model"] == "fdm" and info["step"] == 7
    assert info["sources"] == [{"file": upstream.name, "sha256": sha256(upstream)}]
    convert("--model=fdm", "--source", ours, "--output", back, "--reverse")
    before, after = torch_file.load(upstream), torch_file.load(back)
    assert list(before["state_dict"]) == list(after["state_dict"])
    assert (before["config"], before["step"]) == (after["config"], after["step"])
    for name, array in before["state_dict"].items():
        assert after["state_dict"][name].tobytes() == array.tobytes()
        assert after["state_dict"][name].dtype == array.dtype


def test_replaces_only_when_told(upstream, tmp_path):
    flags = ["--model=fdm", f"--source={upstream}", f"--output={tmp_path / 'a'}"]
    convert(*flags)
    with pytest.raises(ValueError, match="is there already: choose another or add --overwrite"):
        convert(*flags)
    convert(*flags, "--overwrite")
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ValueError, match="holds other files"):
        convert(*flags[:2], f"--output={tmp_path}", "--overwrite")


def other_model(folder):
    checkpoint.save(folder / "i3d", {"x": 1}, {"model": "i3d"})
    return folder / "i3d"


def not_fdm(folder):
    torch_file.save_pt(folder / "a.pt", {"w": np.ones(2)})
    return folder / "a.pt"


def a_tensor_more(folder, upstream):
    content = torch_file.load(upstream)
    content["state_dict"]["extra.weight"] = np.ones(2)
    torch_file.save_pt(folder / "more.pt", content)
    return folder / "more.pt"


def test_bad_input_ends_in_one_line(upstream, tmp_path):
    def fails(message, *flags):
        with pytest.raises(ValueError, match=message) as error:
            convert("--model=fdm", *flags)
        assert "\n" not in str(error.value)

    new = f"--output={tmp_path / 'new'}"
    fails("there is no such file", f"--source={tmp_path / 'nowhere.pt'}", new)
    fails("is not an FDM model file", f"--source={not_fdm(tmp_path)}", new)
    fails("one .pt file, got 2", f"--source={upstream}", f"--source={upstream}", new)
    fails("takes 1: extra.weight", f"--source={a_tensor_more(tmp_path, upstream)}", new)
    fails("has to be a .pt", f"--source={upstream}", new, "--reverse")
    pt = f"--output={tmp_path / 'new.pt'}"
    fails("is a file, not a checkpoint", f"--source={upstream}", pt, "--reverse")
    fails("a checkpoint of 'i3d'", f"--source={other_model(tmp_path)}", pt, "--reverse")
    inside = f"--output={not_fdm(tmp_path) / 'below'}"
    fails("is no writable folder", f"--source={upstream}", inside)
    assert not (tmp_path / "new").exists() and not (tmp_path / "new.pt").exists()


def test_the_note_is_plain_json(upstream, tmp_path):
    convert("--model=fdm", f"--source={upstream}", f"--output={tmp_path / 'a'}")
    assert json.loads((tmp_path / "a" / checkpoint.NOTE).read_text())["arguments"] == ARGUMENTS
