"""Models of a training run, as checkpoints that sampling loads and that convert back to upstream's.

| folder of the run | scripts/convert.py --reverse --model= | entry in upstream's file |
|---|---|---|
| generator | wan_dit | generator |
| generator_ema | wan_dit_ema | generator_ema |
| critic | wan_dit_critic | critic |
| lora | wan_lora | generator_lora |
| critic_lora | wan_lora_critic | critic_lora |

python scripts/convert.py --model=wan_dit_ema --reverse --source=DIR/generator_ema --output=model.pt
"""

import dataclasses

from jaxvid.core import checkpoint
from jaxvid.longlive.train_setup import Setup
from jaxvid.longlive.train_state import State
from jaxvid.wan.dit import WanConfig
from jaxvid.wan.dit_files import Origin
from jaxvid.wan.lora import LoraConfig


def export(setup: Setup, state: State, step: int) -> None:
    """Writes every network that learns; every process calls it."""
    if setup.lora_scale:
        _write_lora(setup, "lora", state.generator.params, setup.lora_scale, setup.network, step)
    else:
        _write(setup, "generator", state.generator.params, setup.network, step)
        if state.generator.ema and step > setup.train.ema_start:
            _write(setup, "generator_ema", state.generator.ema, setup.network, step)
    if setup.critic_scale:
        scale = setup.critic_scale
        _write_lora(setup, "critic_lora", state.critic.params, scale, setup.critic, step)
    elif state.critic:
        _write(setup, "critic", state.critic.params, setup.critic, step)


MODELS = {
    "generator": "wan_dit",
    "generator_ema": "wan_dit_ema",
    "critic": "wan_dit_critic",
    "lora": "wan_lora",
    "critic_lora": "wan_lora_critic",
}


def _write(setup: Setup, name: str, params, network: WanConfig, step: int) -> None:
    origin = dataclasses.asdict(Origin("original", name, "model."))
    info = {"kind": "wan_dit", **_common(name, network, step), "origin": origin}
    checkpoint.save(setup.run.folder / name, params, info, overwrite=True)


def _write_lora(setup: Setup, name: str, params, scale: float, network, step: int) -> None:
    rank = setup.train.lora_rank
    entry = {"lora": "generator_lora", "critic_lora": "critic_lora"}[name]
    strength = dataclasses.asdict(LoraConfig(rank, scale * rank))
    info = {"kind": "wan_lora", **_common(name, network, step), "entry": entry, "lora": strength}
    checkpoint.save(setup.run.folder / name, params, info, overwrite=True)


def _common(name: str, network: WanConfig, step: int) -> dict:
    return {"model": MODELS[name], "network": dataclasses.asdict(network), "step": step}
