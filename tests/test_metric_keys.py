"""Public weights of LPIPS and I3D: names, layouts and the way back."""

import base64

import jax
import numpy as np
import pytest
from metric_weights import random_params

from jaxvid.core import torch_file
from jaxvid.core.torch_legacy import TorchFileError, is_legacy, read_legacy
from jaxvid.metrics import keys
from jaxvid.metrics.lpips import SCALE, SHIFT

# What torch 2.13 saves with _use_new_zipfile_serialization=False for
# {"a.weight": torch.arange(6.0).reshape(2, 3).T, "n": torch.tensor(7)}.
LEGACY = base64.b64decode(
    "gAKKCmz8nEb5IGqoUBkugAJN6QMugAJ9cQAoWBAAAABwcm90b2NvbF92ZXJzaW9ucQFN6QNYDQAAAGxpdHRsZV9lbmRp"
    "YW5xAohYCgAAAHR5cGVfc2l6ZXNxA31xBChYBQAAAHNob3J0cQVLAlgDAAAAaW50cQZLBFgEAAAAbG9uZ3EHSwR1dS6A"
    "An1xAChYCAAAAGEud2VpZ2h0cQFjdG9yY2guX3V0aWxzCl9yZWJ1aWxkX3RlbnNvcl92MgpxAigoWAcAAABzdG9yYWdl"
    "cQNjdG9yY2gKRmxvYXRTdG9yYWdlCnEEWA4AAAA5NDkwMTA0NTIxOTQyNHEFWAMAAABjcHVxBksGTnRxB1FLAEsDSwKG"
    "cQhLAUsDhnEJiWNjb2xsZWN0aW9ucwpPcmRlcmVkRGljdApxCilScQt0cQxScQ1YAQAAAG5xDmgCKChoA2N0b3JjaApM"
    "b25nU3RvcmFnZQpxD1gOAAAAOTQ5MDA5NTkxNjgwMDBxEGgGSwFOdHERUUsAKSmJaAopUnESdHETUnEUdS6AAl1xAChY"
    "DgAAADk0OTAwOTU5MTY4MDAwcQFYDgAAADk0OTAxMDQ1MjE5NDI0cQJlLgEAAAAAAAAABwAAAAAAAAAGAAAAAAAAAAAA"
    "AAAAAIA/AAAAQAAAQEAAAIBAAACgQA=="
)


@pytest.fixture(scope="module")
def alex():
    return random_params(keys.lpips_shapes("alex"))


@pytest.fixture(scope="module")
def i3d():
    return random_params(keys.i3d_shapes())


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_goes_both_ways(net):
    params = random_params(keys.lpips_shapes(net))
    theirs = keys.lpips_to_theirs(params, net)
    assert theirs["net.slice1.0.weight"].shape[1] == 3
    assert theirs["lin4.model.1.weight"].shape[0] == 1
    assert keys.lpips_net(list(theirs)) == net
    assert_equal(keys.lpips_to_ours(theirs, net), params)


def test_lpips_reads_a_whole_module_and_torchvision_with_heads(alex):
    theirs = keys.lpips_to_theirs(alex, "alex")
    module = dict(theirs)
    module |= {n.replace("lin", "lins.", 1): a for n, a in theirs.items() if n.startswith("lin")}
    module["scaling_layer.shift"] = np.array(SHIFT, np.float32)[None, :, None, None]
    module["scaling_layer.scale"] = np.array(SCALE, np.float32)[None, :, None, None]
    assert_equal(keys.lpips_to_ours(module, "alex"), alex)

    vision = {"classifier.1.weight": np.zeros((2, 2), np.float32)}
    for name, array in theirs.items():
        vision["features." + name.split(".", 2)[2] if name.startswith("net.") else name] = array
    assert "features.10.bias" in vision
    assert_equal(keys.lpips_to_ours(vision, "alex"), alex)


def test_lpips_of_two_files(alex, tmp_path):
    theirs = keys.lpips_to_theirs(alex, "alex")
    parts = {
        "trunk.pt": {n: a for n, a in theirs.items() if n.startswith("net.")},
        "heads.pt": {n: a for n, a in theirs.items() if n.startswith("lin")},
    }
    for name, part in parts.items():
        torch_file.save_pt(tmp_path / name, part)
    files = [tmp_path / name for name in parts]
    assert_equal(keys.lpips_to_ours(keys.read(files), "alex"), alex)
    with pytest.raises(ValueError, match="repeats lin0"):
        keys.read([*files, files[1]])


def test_lpips_refuses_other_networks(alex):
    theirs = keys.lpips_to_theirs(alex, "alex")
    with pytest.raises(ValueError, match="nothing fills"):
        keys.lpips_to_ours(theirs, "vgg")
    with pytest.raises(ValueError, match=r"not LPIPS v0\.1"):
        keys.lpips_to_ours({**theirs, "scaling_layer.shift": np.zeros(3)}, "alex")
    with pytest.raises(ValueError, match="neither"):
        keys.lpips_net(["conv1.weight"])


def test_i3d_goes_both_ways(i3d):
    theirs = keys.i3d_to_theirs(i3d)
    assert theirs["Conv3d_1a_7x7.conv3d.weight"].shape == (64, 3, 7, 7, 7)
    assert theirs["Mixed_4c.b1b.conv3d.weight"].shape == (224, 112, 3, 3, 3)
    assert theirs["Mixed_5c.b3b.bn.running_var"].shape == (128,)
    assert theirs["logits.conv3d.weight"].shape == (400, 1024, 1, 1, 1)
    counters = {"Mixed_3b.b0.bn.num_batches_tracked": np.array(3)}
    assert_equal(keys.i3d_to_ours({**theirs, **counters}), i3d)


def test_i3d_with_other_classes_is_refused(i3d):
    theirs = keys.i3d_to_theirs(i3d)
    theirs["logits.conv3d.weight"] = np.zeros((157, 1024, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match="logits"):
        keys.i3d_to_ours(theirs)


def test_legacy_files_are_read(tmp_path):
    path = tmp_path / "old.pth"
    path.write_bytes(LEGACY)
    assert is_legacy(path)
    state = keys.read([path])
    np.testing.assert_array_equal(state["a.weight"], [[0, 3], [1, 4], [2, 5]])
    assert state["n"] == 7


@pytest.mark.parametrize("kept", [15, 60, 200, 440, 480, len(LEGACY) - 1])
def test_legacy_files_that_are_cut_off_are_refused(tmp_path, kept):
    path = tmp_path / "old.pth"
    path.write_bytes(LEGACY[:kept])
    with pytest.raises(TorchFileError):
        read_legacy(path)


def test_legacy_files_run_no_code(tmp_path):
    path = tmp_path / "old.pth"
    path.write_bytes(LEGACY.replace(b"collections\nOrderedDict", b"builtins\neval"))
    with pytest.raises(TorchFileError, match="eval"):
        read_legacy(path)


def test_legacy_storages_as_long_as_they_say(tmp_path):
    path = tmp_path / "old.pth"
    count = np.int64(6).tobytes()
    path.write_bytes(LEGACY.replace(count, np.int64(5).tobytes()))
    with pytest.raises(TorchFileError, match="not as long"):
        read_legacy(path)
