"""LongLive as a mode with networks of a few thousand parameters, and upstream's files of them."""

import functools
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxvid.core import torch_file
from jaxvid.core.config import load_config, override
from jaxvid.core.random_tree import draw
from jaxvid.wan import dit, dit_files, umt5, umt5_keys, vae, vae_keys
from jaxvid.wan.lora import LoraConfig, abstract_adapters

ROOT = Path(__file__).parents[1]
SMALL = {  # on top of configs/longlive.py:tiny, to compile faster
    "sampling.height": 16,
    "sampling.width": 32,
    "sampling.latent_frames": 8,
    "sampling.conditioning_frames": 8,
    "rollout.steps": "(1000, 500)",
    "rollout.window": 7,
    "rollout.sink": 2,
    "network.depth": 1,
    "network.width": 16,
    "network.mlp": 32,
    "network.frequencies": 16,
    "text.layers": 1,
    "vae.width": 4,
    "vae.multipliers": "(1, 1)",
    "vae.halve_time": "(True,)",
}


def config(**changes) -> ConfigDict:
    """The small config; `sampling__seed=3` sets sampling.seed."""
    found = load_config(f"{ROOT}/configs/longlive.py:tiny")
    found.run.output = "outputs/small"
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    override(found, [f"{name}={value}" for name, value in (SMALL | changes).items()])
    return found


def arguments(**changes) -> list[str]:
    """The same for the command line."""
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return [
        f"--config={ROOT}/configs/longlive.py:tiny",
        *(f"--config.{name}={value}" for name, value in (SMALL | changes).items()),
    ]


WAN = dit.WanConfig(
    depth=1, width=128, heads=1, mlp=32, text_width=16, frequencies=16, text_length=512
)
VAE = vae.VaeConfig(width=4, blocks=1, multipliers=(1, 1), halve_time=(True,))
TEXT = umt5.Umt5Config(vocabulary=259, width=16, attention_width=16, hidden=16, heads=2, layers=1)


@functools.cache
def write_files(folder: Path) -> dict[str, str]:
    """Upstream's files of small networks, by field of `models`."""
    numpy = functools.partial(draw, seed=0, dtype="float32")
    params = numpy(dit.abstract_parameters(WAN))
    wan = dit_files.write_back(params, dit_files.Origin("original", "generator", "model."))
    lora = numpy(abstract_adapters(dit.abstract_parameters(WAN), LoraConfig(4)), name="lora")
    content = {
        "transformer": wan | {"step": 3},
        "lora": dit_files.write_adapters(jax.tree.map(lambda a: np.float32(0.1) * a, lora)),
        "vae": vae_keys.revert(numpy(vae.abstract_parameters(VAE)), {}),
        "text_encoder": umt5_keys.revert(numpy(umt5.abstract_parameters(TEXT)), {}),
    }
    paths = {"tokenizer": str(ROOT / "data/tokenizer")}
    for name, tensors in content.items():
        paths[name] = str(folder / f"{name}.pt")
        torch_file.save_pt(paths[name], tensors)
    return paths
