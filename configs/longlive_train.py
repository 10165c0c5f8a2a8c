"""Trains LongLive: a causal generator by regression, then by distillation of a teacher.

python scripts/train.py --config=configs/longlive_train.py
python scripts/train.py --config=configs/longlive_train.py:tiny_dmd --config.run.output=outputs/tiny
python scripts/ode_pairs.py --config=configs/longlive_train.py:tiny_ode --output=outputs/tiny_pairs

`:flow_matching` and `:ode` make a causal generator of a bidirectional one, `:dmd` (the default)
distils it, `:streaming` tunes adapters (LoRA) on long videos whose prompts change. Each has a
`tiny_` form that draws small networks at random, to try the training itself, since their text
encoder and VAE are not kept; `:tiny_ode` needs the pairs of the line above. The run's folder gets
models to sample from, which `scripts/convert.py --reverse` writes as upstream's files:

python scripts/sample.py --config=configs/longlive.py --config.models.lora="" \\
  --config.models.transformer=outputs/longlive_dmd/generator_ema
"""

from ml_collections import ConfigDict

from jaxvid.core.config import section
from jaxvid.core.mesh import MeshConfig
from jaxvid.longlive.rollout import RolloutConfig
from jaxvid.longlive.train_config import DataConfig, TrainConfig, TrainModelConfig
from jaxvid.runs.training_settings import RunConfig
from jaxvid.wan.dit import WanConfig
from jaxvid.wan.umt5 import Umt5Config
from jaxvid.wan.vae import VaeConfig

STAGES = ("flow_matching", "ode", "dmd", "streaming")
VARIANTS = (*STAGES, *(f"tiny_{stage}" for stage in STAGES))
BIDIRECTIONAL = "wan_models/Wan2.1-T2V-1.3B/diffusion_pytorch_model.safetensors"
PROMPTS = "longlive_models/prompts/vidprom_filtered_extended"


def get_config(variant: str = "dmd") -> ConfigDict:
    """`tiny_` variants compile for minutes, then take seconds; the others need the downloads."""
    if variant not in VARIANTS:
        raise ValueError(f"configs/longlive_train.py has no variant {variant!r}; known: {VARIANTS}")
    stage = variant.removeprefix("tiny_")
    config = ConfigDict({"mode": "longlive"})
    config.train = section(TrainConfig, stage=stage)
    config.data = section(DataConfig)
    config.rollout = section(RolloutConfig)
    config.models = section(TrainModelConfig)
    config.run = section(RunConfig, output=f"outputs/longlive_{variant}")
    config.mesh = section(MeshConfig)
    config.network = section(WanConfig)  # of models.random only, like the next four
    config.critic = section(WanConfig)
    config.teacher = section(WanConfig)
    config.vae = section(VaeConfig)
    config.text = section(Umt5Config)
    for name, fields in stage_settings(stage).items():
        config[name].update(fields)
    if variant.startswith("tiny_"):
        for name, fields in tiny(stage).items():
            config[name].update(fields)
    return config


def stage_settings(stage: str) -> dict:
    """What differs from stage to stage, as upstream has it where it says so."""
    if stage == "flow_matching":
        train = {"steps": 3000, "lr": 1e-5, "beta1": 0.9, "log_every": 10}
        models = {"transformer": BIDIRECTIONAL, "critic": "", "teacher": ""}
        return {"train": train, "models": models, "data": {"videos": "data/clips/captions.jsonl"}}
    if stage == "ode":
        train = {"steps": 3000, "log_every": 10}
        models = {"transformer": BIDIRECTIONAL, "critic": "", "teacher": ""}
        data = {"pairs": "outputs/ode_pairs", "prompts": f"{PROMPTS}.txt"}
        return {"train": train, "models": models, "data": data}
    if stage == "dmd":
        return {"data": {"prompts": f"{PROMPTS}.txt"}}
    train = {"steps": 3000, "lr": 1e-5, "critic_lr": 2e-6, "lora_rank": 256, "ema": 0.0}
    train |= {"save_every": 50, "keep": 3}
    data = {"prompts": f"{PROMPTS}.txt", "switch_prompts": f"{PROMPTS}_switch.txt"}
    start = "checkpoints/longlive_init.pt"  # `generator` and `critic` of the stage before
    models = {"transformer": start, "critic": start}
    return {"train": train, "models": models, "data": data}


def tiny(stage: str) -> dict:
    """Shapes with nothing left out: a window that slides, a sink, a switch within a chunk."""
    wan = {"depth": 1, "width": 32, "heads": 2, "mlp": 64, "text_width": 32, "frequencies": 16}
    wan |= {"text_length": 128, "channels": 4}
    data = {"height": 16, "width": 16, "latents": "", "prompts": "data/prompts/text.txt"}
    data |= {"negative_prompt": "blurred"}
    train = {"steps": 4, "batch_size": 2, "frames": 6, "lr": 1e-3, "critic_lr": 1e-3}
    train |= {"generator_every": 2, "ema_start": 2, "save_every": 2, "log_every": 1}
    train |= {"sample_frames": 6}
    if stage == "flow_matching":
        data |= {"windows": 4}
    elif stage == "ode":
        data |= {"pairs": "outputs/tiny_pairs"}
    elif stage == "streaming":
        data |= {"prompts": "data/prompts/interactive.jsonl", "switch_prompts": ""}
        train |= {"new_frames": 4, "max_frames": 14, "switch_frames": (6, 8), "lora_rank": 2}
    return {
        "train": train,
        "data": data,
        "rollout": {"block": 2, "window": 5, "sink": 1, "steps": (1000, 500)},
        "models": {
            "random": True,
            "tokenizer": "data/tokenizer",
            "embeddings": "",
            "dtype": "float32",
        },
        "network": wan,
        "critic": wan,
        "teacher": wan,
        "vae": {
            "width": 4,
            "blocks": 1,
            "latent_channels": 4,
            "multipliers": (1, 1),
            "halve_time": (True,),
            "mean": (0.0,) * 4,
            "std": (1.0,) * 4,
        },
        "text": {
            "vocabulary": 259,
            "width": 32,
            "attention_width": 32,
            "hidden": 64,
            "heads": 2,
            "layers": 1,
        },
    }
