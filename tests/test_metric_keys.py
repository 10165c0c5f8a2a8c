"""Public weights of LPIPS and I3D: names, layouts and the way back."""

import jax
import numpy as np
import pytest
from metric_weights import random_params

from jaxvid.core import torch_file
from jaxvid.metrics import keys
from jaxvid.metrics.lpips import SCALE, SHIFT


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
    assert_equal(keys.lpips_to_ours(torch_file.load_all(files), "alex"), alex)
    with pytest.raises(ValueError, match="repeats lin0"):
        torch_file.load_all([*files, files[1]])


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
