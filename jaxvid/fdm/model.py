"""An FDM model as a value: network and diffusion settings, parameters, where they come from."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxvid.core import checkpoint
from jaxvid.core.config import build
from jaxvid.core.files import sha256
from jaxvid.fdm.conditioning import Conditioner
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.unet import Frames, UNet, UNetConfig

RULES = ((r".*", P()),)  # replicated: the published models have 80 million parameters


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """Parameters with all that is needed to run them."""

    network: UNetConfig
    diffusion: DiffusionConfig
    params: dict
    arguments: dict  # training arguments in upstream's terms
    step: int = 0

    def info(self) -> dict:
        """The JSON kept beside the parameters."""
        return {
            "kind": "fdm",
            "network": dataclasses.asdict(self.network),
            "diffusion": dataclasses.asdict(self.diffusion),
            "arguments": self.arguments,
            "step": self.step,
        }


def read_info(path) -> dict:
    """The info of an FDM checkpoint of ours.

    Raises:
      ValueError: no checkpoint there, or one of another system.
    """
    info = checkpoint.read_info(path)
    kind = info.get("kind", "something else") if isinstance(info, Mapping) else "something else"
    if kind != "fdm":
        raise ValueError(f"{path} holds a checkpoint of {kind}, not FDM")
    if missing := [key for key in ("network", "diffusion", "arguments", "step") if key not in info]:
        raise ValueError(f"{path} is damaged: its {checkpoint.NOTE} lacks {', '.join(missing)}")
    return info


def describe_model(path) -> Model:
    """The model at `path` without its parameters; reads no weights of an Orbax folder.

    Raises:
      ValueError: as load_model.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path}")
    if path.suffix in (".pt", ".pth"):
        from jaxvid.fdm.keys import read_checkpoint

        return dataclasses.replace(read_checkpoint(path), params={})
    info = read_info(path)
    return Model(
        network=build(UNetConfig, info["network"], f"{path}: network"),
        diffusion=build(DiffusionConfig, info["diffusion"], f"{path}: diffusion"),
        params={},
        arguments=info["arguments"],
        step=info["step"],
    )


def load_model(path, sharding=None) -> Model:
    """Reads an FDM checkpoint: our Orbax folder, or an upstream `.pt` file.

    Args:
      path: folder or file.
      sharding: where each parameter goes (default: one device).
    Raises:
      ValueError: see read_info and keys.read_checkpoint.
    """
    path = Path(path).expanduser()
    if path.suffix in (".pt", ".pth"):
        from jaxvid.fdm.keys import read_checkpoint  # only this path needs PyTorch's names

        model = read_checkpoint(path)
        return dataclasses.replace(model, params=jax.device_put(model.params, sharding))
    model = describe_model(path)
    like = abstract_parameters(model.network)
    if sharding is not None:
        like = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), like
        )
    return dataclasses.replace(model, params=checkpoint.restore(path, like))


def identity(path) -> str:
    """Hash that tells checkpoints apart, whatever their place."""
    path = Path(path).expanduser()
    return sha256(path) if path.suffix in (".pt", ".pth") else checkpoint.fingerprint(path)


def save_model(path, model: Model, overwrite: bool = False) -> None:
    """Writes the model as a checkpoint folder."""
    checkpoint.save(path, model.params, model.info(), overwrite)


@functools.partial(jax.jit, static_argnums=0)
def initial_parameters(config: UNetConfig, key) -> dict:
    """Fresh parameters, distributed as PyTorch's initialisation of upstream's network."""
    key_unet, key_conditioner = jax.random.split(key)
    frames = example_frames(config)
    timesteps = jnp.zeros(1)
    x = jnp.zeros(
        (*frames.indices.shape, config.image_size, config.image_size, config.image_channels)
    )
    conditioner = Conditioner(config)
    variables = conditioner.init(key_conditioner, timesteps, frames.indices, frames.observed)
    terms = conditioner.apply(variables, timesteps, frames.indices, frames.observed)
    unet = UNet(config).init(key_unet, x, x, frames, terms)
    return {"unet": unet["params"], "conditioner": variables["params"]}


def example_frames(config: UNetConfig) -> Frames:
    """Two latent frames of one video, for shapes."""
    ones = jnp.ones((1, 2))
    return Frames(jnp.arange(2)[None], jnp.zeros((1, 2)), ones)


def abstract_parameters(config: UNetConfig) -> dict:
    """Shapes and dtypes of the parameters, without computing them."""
    return jax.eval_shape(lambda: initial_parameters(config, jax.random.key(0)))


def condition(config: UNetConfig, params: Mapping, timesteps, frames: Frames) -> dict:
    """What depends on time and frame indices only; see Conditioner."""
    variables = {"params": params["conditioner"]}
    return Conditioner(config).apply(variables, timesteps, frames.indices, frames.observed)


def evaluate(config: UNetConfig, params: Mapping, x, x0, frames: Frames, terms, dropout_key=None):
    """One evaluation of the UNet with ready conditioning terms; see UNet."""
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    return UNet(config).apply(
        {"params": params["unet"]}, x, x0, frames, terms, dropout_key is None, rngs=rngs
    )


def network(
    config: UNetConfig, params: Mapping, x, x0, timesteps, frames: Frames, dropout_key=None
):
    """The whole network in one call.

    x, x0: (b, t, h, w, c); timesteps: (b,) rescaled; returns (b, t, h, w, out_channels).
    """
    terms = condition(config, params, timesteps, frames)
    return evaluate(config, params, x, x0, frames, terms, dropout_key)
