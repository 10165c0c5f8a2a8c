"""Long videos of prompts with LongLive: from text, with prompts that change, or from a video.

python scripts/sample.py --config=configs/longlive.py:tiny
python scripts/sample.py --config=configs/longlive.py --config.sampling.prompt="A red tram."
python scripts/sample.py --config=configs/longlive.py:interactive --config.sampling.num_samples=2
python scripts/sample.py --config=configs/longlive.py:video_conditional \\
  --config.sampling.prompts=data/prompts/video_conditional.jsonl
"""

from ml_collections import ConfigDict

from jaxvid.core.config import section
from jaxvid.core.mesh import MeshConfig
from jaxvid.longlive.rollout import RolloutConfig
from jaxvid.longlive.sample_config import ModelConfig, SampleConfig
from jaxvid.runs.config import RunConfig
from jaxvid.wan.dit import WanConfig
from jaxvid.wan.umt5 import Umt5Config
from jaxvid.wan.vae import VaeConfig

VARIANTS = ("tiny", "t2v", "interactive", "video_conditional")


def get_config(variant: str = "t2v") -> ConfigDict:
    """`tiny` draws small networks at random and needs no files; the others need the downloads."""
    config = ConfigDict({"mode": "longlive"})
    config.sampling = section(SampleConfig, prompts="data/prompts/text.txt")
    config.rollout = section(RolloutConfig)
    config.models = section(ModelConfig)
    config.network = section(WanConfig)  # of models.random only, like the next two
    config.vae = section(VaeConfig)
    config.text = section(Umt5Config)
    config.mesh = section(MeshConfig)
    config.run = section(RunConfig, output=f"outputs/longlive_{variant}")
    if variant == "tiny":
        config.update(tiny())
    elif variant == "interactive":
        prompts = "data/prompts/interactive.jsonl"
        config.sampling.update(prompts=prompts, latent_frames=240, switch_frames=(80, 160), seed=1)
    elif variant == "video_conditional":
        prompts = "data/prompts/video_conditional.jsonl"
        config.sampling.update(prompts=prompts, latent_frames=240, seed=1)
    elif variant != "t2v":
        raise ValueError(f"configs/longlive.py has no variant {variant!r}; known: {VARIANTS}")
    return config


def tiny() -> dict:
    """Shapes with nothing left out: a full window, a sink, a last block that is cut."""
    return {
        "sampling": {
            "latent_frames": 13,
            "height": 64,
            "width": 64,
            "conditioning_frames": 14,
            "probes": "",
        },
        "rollout": {"window": 9},
        "models": {
            "random": True,
            "lora": "",
            "tokenizer": "data/tokenizer",
            "embeddings": "",
            "dtype": "float32",
        },
        "network": {"depth": 2, "width": 48, "heads": 2, "mlp": 96, "text_width": 32},
        "vae": {"width": 8, "blocks": 1, "multipliers": (1, 1, 1), "halve_time": (True, True)},
        "text": {
            "vocabulary": 259,
            "width": 32,
            "attention_width": 32,
            "hidden": 64,
            "heads": 2,
            "layers": 2,
        },
    }
