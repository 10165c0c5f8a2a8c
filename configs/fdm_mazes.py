"""Trains FDM on GQN mazes with the paper's settings: 64x64, 20 of 300 frames at a time.

python scripts/train.py --config=configs/fdm_mazes.py --config.run.output=checkpoints/mazes

The data are looked for in upstream's layout. To download them (once) and use them from there:

python -m jaxvid.data.prepare --name=mazes_cwvae --data_dir=datasets/prepared
python scripts/train.py --config=configs/fdm_mazes.py --config.run.output=checkpoints/mazes \\
  --config.data.prepared=datasets/prepared
"""

from ml_collections import ConfigDict

from jaxvid.core.config import section
from jaxvid.core.mesh import MeshConfig
from jaxvid.data.sources import DataConfig
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.train import TrainConfig
from jaxvid.fdm.unet import UNetConfig
from jaxvid.runs.training_settings import RunConfig

VARIANTS = ("paper", "tiny")


def get_config(variant: str = "") -> ConfigDict:
    """`paper` is the network of the paper's code; `tiny` trains for seconds on rendered mazes.

    Without a variant the network is that of the refactored code, as in the public checkpoint.
    """
    config = ConfigDict({"mode": "fdm"})
    config.network = section(UNetConfig, image_size=64, attention_at=(4, 8), res_blocks=1)
    config.diffusion = section(DiffusionConfig)
    config.data = section(DataConfig, name="mazes_cwvae")
    config.train = section(
        TrainConfig,
        steps=950_000,  # of the model behind the published figures
        batch_size=8,
        max_frames=20,
        lr=1e-4,
        ema_rates=(0.9999,),
    )
    config.run = section(RunConfig)
    config.mesh = section(MeshConfig)
    if variant == "paper":
        config.network.update({"indicator": "observed+marginal", "spatial_encoding": True})
    elif variant == "tiny":
        config.network.update({"image_size": 16, "channels": 32, "channel_mult": (1, 1)})
        config.network.attention_at = (2,)
        config.diffusion.steps = 50
        config.data = section(DataConfig, size=16, frames=12, train_videos=4, test_videos=2)
        config.train.update({"steps": 6, "batch_size": 2, "max_frames": 5})
        config.train.update({"log_every": 2, "save_every": 3, "sample_every": 0})
    elif variant:
        raise ValueError(f"configs/fdm_mazes.py has no variant {variant!r}; known: {VARIANTS}")
    return config
