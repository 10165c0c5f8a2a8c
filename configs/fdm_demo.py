"""Completes a walk through a maze with the small model that ships in `data/`, on a CPU.

python scripts/sample.py --config=configs/fdm_demo.py
python scripts/sample.py --config=configs/fdm_demo.py:mazes --config.run.output=outputs/mazes
"""

from ml_collections import ConfigDict

from jaxvid.core.config import section
from jaxvid.core.mesh import MeshConfig
from jaxvid.data.sources import DataConfig
from jaxvid.fdm.sample_config import SampleConfig
from jaxvid.runs.config import RunConfig

VARIANTS = ("mazes", "tiny")


def get_config(variant: str = "") -> ConfigDict:
    """`mazes` samples from rendered test walks, `tiny` makes few frames in few steps, for tests."""
    config = ConfigDict({"mode": "fdm"})
    config.checkpoint = "data/fdm_demo"
    config.network_dtype = ""  # "float32" or "bfloat16"; "" as the checkpoint says
    config.data = section(
        DataConfig, name="videos", root="data/clips", frames=48, size=32, resize="center_crop"
    )
    config.sampling = section(
        SampleConfig,
        scheme="autoreg",  # windows of 4 + 4 frames, as in its training
        n_obs=12,
        max_frames=8,
        step_size=4,
        batch_size=1,
        respacing="25",
    )
    config.run = section(RunConfig, output="outputs/demo")
    config.mesh = section(MeshConfig)
    if variant == "mazes":
        config.data = section(
            DataConfig, name="maze_walk", seed=7, looks=1, frames=48, size=32, test_videos=16
        )
    elif variant == "tiny":
        config.data.update(frames=16, probes="")
        config.sampling.update(
            {"n_obs": 4, "method": "ddim", "respacing": "ddim5", "video_size": 64}
        )
        config.run.output = "outputs/tiny"
    elif variant:
        raise ValueError(f"configs/fdm_demo.py has no variant {variant!r}; known: {VARIANTS}")
    return config
