"""scripts/convert.py for the Cosmos network: release files and back, from the command line."""

import importlib.util
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from small_cosmos import CONFIG, parameters

from jaxvid.core import checkpoint, torch_file
from jaxvid.core.convert import to_theirs
from jaxvid.cosmos import files, keys

SCRIPT = Path(__file__).parents[1] / "scripts" / "convert.py"


def convert(*flags):
    spec = importlib.util.spec_from_file_location("convert_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(flag) for flag in flags])


def test_there_and_back(tmp_path):
    theirs = to_theirs(parameters(CONFIG), keys.RULES)
    release = {
        f"net.{n}": np.ascontiguousarray(a.astype(ml_dtypes.bfloat16)) for n, a in theirs.items()
    }
    source, ours, back = (tmp_path / name for name in ("ema_bf16.pt", "ours", "back.pt"))
    torch_file.save_pt(source, release)
    convert("--model=cosmos_multiview", f"--source={source}", f"--output={ours}")
    assert checkpoint.read_info(ours)["kind"] == "cosmos_multiview"
    assert files.network_of(checkpoint.read_info(ours)).hinted == CONFIG.hinted
    convert("--model=cosmos_multiview", "--source", ours, "--output", back, "--reverse")
    found = torch_file.load(back)
    assert set(found) == set(release)
    for name, array in release.items():
        assert found[name].tobytes() == array.tobytes() and found[name].dtype == array.dtype


def test_settings_that_are_not_the_network(tmp_path):
    (tmp_path / "net.json").write_text('{"vace_has_mask": true}')
    torch_file.save_pt(tmp_path / "a.pt", {"net.x.weight": np.ones(2)})
    sources = ["--source", tmp_path / "a.pt", tmp_path / "net.json"]
    with pytest.raises(ValueError, match="vace_has_mask=True is not supported, only False"):
        convert("--model=cosmos_multiview", *sources, f"--output={tmp_path / 'ours'}")


def test_folders_are_for_this_network_only(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        convert("--model=wan_vae", f"--source={tmp_path}", f"--output={tmp_path / 'ours'}")
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match=r"model: it has no \.metadata: give the folder"):
        convert(
            "--model=cosmos_multiview", f"--source={tmp_path / 'model'}", f"--output={tmp_path}/o"
        )
