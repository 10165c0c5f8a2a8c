"""Completes test videos with any FDM checkpoint, ours or an upstream `.pt`, as in the paper.

python scripts/sample.py --config=configs/fdm_sample.py \\
  --config.checkpoint=checkpoints/mazes/ema_0.9999

The dataset is the one that the checkpoint was trained on, unless `data.name` says otherwise.
"""

from ml_collections import ConfigDict

from jaxvid.core.config import section
from jaxvid.core.mesh import MeshConfig
from jaxvid.data.sources import DataConfig
from jaxvid.fdm.sample_config import SampleConfig
from jaxvid.runs.config import RunConfig

VARIANTS = ("tiny",)


def get_config(variant: str = "") -> ConfigDict:
    """`tiny` fits the models of the `tiny` variants of the training configs."""
    config = ConfigDict({"mode": "fdm"})
    config.checkpoint = ""  # required: a folder of ours, or model*.pt, ema*.pt of upstream
    config.network_dtype = ""  # "float32" or "bfloat16"; "" as the checkpoint says
    config.data = section(DataConfig, name="")  # "": as in training
    config.sampling = section(
        SampleConfig,
        scheme="hierarchy-2",
        n_obs=36,
        max_frames=0,  # as in training, 20 in all published models
        step_size=0,  # half of max_frames
        batch_size=8,
        method="ddpm",  # all 1000 steps
    )
    config.run = section(RunConfig)  # output="": results/<checkpoint>/<settings>, as upstream
    config.mesh = section(MeshConfig)
    if variant == "tiny":
        config.data.update({"size": 16, "frames": 12, "test_videos": 2})
        config.sampling.update({"n_obs": 4, "respacing": "10", "batch_size": 2, "video_size": 64})
    elif variant:
        raise ValueError(f"configs/fdm_sample.py has no variant {variant!r}; known: {VARIANTS}")
    return config
