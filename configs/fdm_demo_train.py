"""Trains the demo model of `data/` on rendered maze walks, 32x32, on a CPU.

python scripts/train.py --config=configs/fdm_demo_train.py --config.run.output=checkpoints/demo
"""

from ml_collections import ConfigDict

from jaxvid.core.config import section
from jaxvid.core.mesh import MeshConfig
from jaxvid.data.sources import DataConfig
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.train import TrainConfig
from jaxvid.fdm.unet import UNetConfig
from jaxvid.runs.training_settings import RunConfig

VARIANTS = ("tiny",)


def get_config(variant: str = "") -> ConfigDict:
    """`tiny` is a few seconds of training, for tests."""
    config = ConfigDict({"mode": "fdm"})
    config.network = section(
        UNetConfig, image_size=32, channels=32, channel_mult=(1, 2, 3), attention_at=(2, 4)
    )
    config.diffusion = section(DiffusionConfig, schedule="cosine", predict="clean")
    config.data = section(
        DataConfig, name="maze_walk", seed=7, looks=1, size=32, frames=60, train_videos=800
    )
    config.train = section(
        TrainConfig,
        steps=2000,
        batch_size=4,
        max_frames=8,
        lr=1e-3,
        lr_anneal_steps=2000,
        ema_rates=(0.998,),
        mask_distribution="autoregressive-4",
        pad_with_random_frames=False,
        loss_average="masked",
        log_every=20,
        save_every=250,
        sample_every=0,
    )
    config.run = section(RunConfig)
    config.mesh = section(MeshConfig)
    if variant == "tiny":
        config.network.update({"image_size": 16, "channel_mult": (1, 1), "attention_at": (2,)})
        config.diffusion.steps = 50
        config.data.update({"size": 16, "frames": 12, "train_videos": 4, "test_videos": 2})
        config.train.update({"steps": 6, "batch_size": 2, "max_frames": 5, "lr_anneal_steps": 0})
        config.train.update({"log_every": 2, "save_every": 3, "sample_every": 0})
    elif variant:
        raise ValueError(f"configs/fdm_demo_train.py has no variant {variant!r}; known: {VARIANTS}")
    return config
