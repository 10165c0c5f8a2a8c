"""Folders of torch.distributed.checkpoint: read without torch, and nothing in them is run.

tests/distcp/model was saved by two processes: `rows` split over them along axis 0, `columns` along
axis 1, `whole` and `plain` not split, a counter, a byte stream and a step beside them.
"""

import io
import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch_files as build
from small_cosmos import CONFIG, parameters

from jaxvid.core import checkpoint, distcp_file, torch_file
from jaxvid.core.convert import to_theirs
from jaxvid.core.torch_file import TorchFileError
from jaxvid.cosmos import files, keys

FOLDER = Path(__file__).parent / "distcp" / "model"


def eighths(*shape, dtype=np.float32):
    return (np.arange(np.prod(shape)).reshape(shape) / 8).astype(dtype)


def test_parts_are_put_together():
    found = distcp_file.load(FOLDER)
    expected = {
        "net.rows": eighths(5, 3),
        "net.columns": eighths(2, 4, dtype=ml_dtypes.bfloat16),
        "net.whole": eighths(3),
        "net.plain": eighths(2, 2),
        "net.accum_iteration": np.array(7),
    }
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def without_metadata(folder):
    (folder / ".metadata").unlink()


def cut(folder):
    path = folder / "__1_0.distcp"
    path.write_bytes(path.read_bytes()[:-2000])


def one_file_less(folder):
    (folder / "__0_0.distcp").unlink()


def other_files(folder):
    shutil.copy(folder / "__0_0.distcp", folder / "__1_0.distcp")


def renamed_file(folder):
    """The metadata names a file elsewhere; both names have the same length."""
    path = folder / ".metadata"
    path.write_bytes(path.read_bytes().replace(b"__0_0.distcp", b"../a_.distcp"))


def hostile(folder):
    command = build.call(build.name("os", "system"), build.text("touch /tmp/jaxvid-distcp-ran"))
    (folder / ".metadata").write_bytes(build.program(command))


def no_checkpoint(folder):
    (folder / ".metadata").write_bytes(build.program(build.text("a")))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (without_metadata, "it has no .metadata: give the folder of the .distcp files"),
        (cut, "it is cut off or of another folder"),
        (one_file_less, "cannot be read: No such file"),
        (other_files, "it is cut off or of another folder"),
        (renamed_file, "is no .distcp file in it"),
        (hostile, "asks for os.system"),
        (no_checkpoint, "describes no checkpoint"),
    ],
)
def test_broken_folders_are_one_line(harm, words, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(FOLDER, folder)
    harm(folder)
    with pytest.raises(TorchFileError) as caught:
        dict(distcp_file.load(folder).items())
    assert words in str(caught.value) and str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value) and not os.path.exists("/tmp/jaxvid-distcp-ran")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(TorchFileError, match="there is no such folder"):
        distcp_file.load(tmp_path / "model")


@pytest.mark.parity
def test_a_network_saved_by_torch_converts_there_and_back(tmp_path):
    """The EMA of a training checkpoint through scripts/convert.py and back to a release file."""
    torch = pytest.importorskip("torch")
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    from test_cosmos_convert import convert

    theirs = to_theirs(parameters(CONFIG), keys.RULES)
    tensors = {f"net_ema.{n}": torch.from_numpy(np.ascontiguousarray(a)) for n, a in theirs.items()}
    tensors |= {n.replace("net_ema", "net"): torch.zeros_like(a) for n, a in tensors.items()}
    tensors["net.blocks.0.self_attn.q_norm._extra_state"] = io.BytesIO(b"x")
    folder = tmp_path / "iter_000005000" / "model"
    dcp.save(tensors, checkpoint_id=folder)
    ours, back = tmp_path / "ours", tmp_path / "model_ema_bf16.pt"
    convert("--model=cosmos_multiview", f"--source={folder}", f"--output={ours}")
    assert [source["file"] for source in checkpoint.read_info(ours)["sources"]] == [
        ".metadata",
        "__0_0.distcp",
    ]
    convert("--model=cosmos_multiview", "--source", ours, "--output", back, "--reverse")
    release = torch.load(back, weights_only=True)
    assert set(release) == {f"net.{n}" for n in theirs}
    for name, array in torch_file.load(back).items():
        expected = theirs[name.removeprefix("net.")].astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(array, expected, err_msg=name)
    assert files.read_network(back)[1] == files.network_of(checkpoint.read_info(ours))
