"""Post-trains Cosmos-Transfer2.5 auto multiview on your own drives.

python scripts/train.py --config=configs/cosmos_train.py:tiny
python scripts/train.py --config=configs/cosmos_train.py --config.data.root=DATASET \\
  --config.run.output=checkpoints/my_cars

DATASET is a folder in upstream's layout (jaxvid/cosmos/train_data.py). By default the control
branch of the release is trained further, on all devices together; the rest is frozen. The averaged
parameters are in `model` below run.output, to sample from and for scripts/convert.py.
"""

from ml_collections import ConfigDict

from jaxvid.core.config import section
from jaxvid.core.mesh import MeshConfig
from jaxvid.cosmos.dit import DitConfig
from jaxvid.cosmos.prompts import PromptConfig
from jaxvid.cosmos.sample_config import ModelConfig
from jaxvid.cosmos.text import TextConfig
from jaxvid.cosmos.train import TrainConfig
from jaxvid.cosmos.train_data import DataConfig
from jaxvid.runs.training_settings import RunConfig
from jaxvid.wan.vae import VaeConfig

VARIANTS = ("release", "lora", "all", "from_base", "tiny")


def get_config(variant: str = "release") -> ConfigDict:
    """`lora` trains adapters, `all` the whole network, `from_base` a new control branch.

    `tiny` trains a small network from nothing on drawn scenes, on any computer, in about a minute.
    """
    config = ConfigDict({"mode": "cosmos"})
    config.data = section(DataConfig)
    config.train = section(TrainConfig)
    config.models = section(ModelConfig)  # what the run starts from
    config.text = section(PromptConfig, embeddings="")
    config.network = section(DitConfig)  # of models.random and of a base, like the next two
    config.vae = section(VaeConfig)
    config.encoder = section(TextConfig)
    config.mesh = section(MeshConfig, data=1, seq=-1)
    config.run = section(RunConfig)
    if variant == "lora":
        config.train.part = "lora"
    elif variant == "all":
        config.train.part = "all"
        config.text = section(PromptConfig)  # embeddings are kept, 103 MB for a text, not words
    elif variant == "from_base":
        config.train.control = "from_base"
    elif variant == "tiny":
        config.update(tiny())
    elif variant != "release":
        raise ValueError(f"configs/cosmos_train.py has no variant {variant!r}; known: {VARIANTS}")
    return config


def tiny() -> dict:
    """Everything that the release has, small; two cameras."""
    return {
        "data": {
            "views": ("front_wide", "rear"),
            "frames": 5,
            "height": 32,
            "width": 64,
            "samples": 16,
        },
        "train": {
            "part": "all",
            "steps": 300,
            "batch_size": 4,
            "lr": 4e-3,
            "warmup_steps": 20,
            "clip": 1.0,
            "ema": 0.1,
            "log_every": 25,
            "save_every": 100,
            "sample_every": 50,
            "given_frames": (0.5, 0.5),  # of two latent frames
        },
        "models": {"random": True, "dtype": "float32"},
        "network": {
            "depth": 2,
            "width": 48,
            "heads": 2,
            "mlp": 96,
            "channels": 4,
            "modulation_rank": 8,
            "text_in": 32,
            "text_width": 16,
            "control_every": 1,
            "modalities": 1,
        },
        "vae": {
            "width": 8,
            "blocks": 1,
            "latent_channels": 4,
            "multipliers": (1, 1, 1),
            "halve_time": (True, True),
            "mean": (-0.25, -0.29, 0.16, -0.07),  # of the drawn videos
            "std": (0.4, 0.25, 0.36, 0.19),
        },
        "text": {"random": True, "tokenizer": "data/tokenizer_qwen", "dtype": "float32"},
        "encoder": {
            "vocabulary": 330,
            "width": 16,
            "hidden": 32,
            "heads": 2,
            "key_heads": 1,
            "layers": 2,
        },
        "mesh": {"data": -1, "seq": 1},
        "run": {"output": "outputs/cosmos_train_tiny"},
    }
