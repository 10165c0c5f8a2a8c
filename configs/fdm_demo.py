"""Completes a walk through a maze with the small model that ships in `data/`, on a CPU.

python scripts/sample.py --config=configs/fdm_demo.py
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """`mazes` samples from rendered test walks instead of the shipped clip."""
    config = ConfigDict({"mode": "fdm"})
    config.checkpoint = "data/fdm_demo"
    config.data = ConfigDict(
        {"name": "videos", "root": "data/clips", "frames": 48, "size": 32, "resize": "center_crop"}
    )
    config.sampling = ConfigDict(
        {
            "scheme": "hierarchy-2",
            "n_obs": 12,
            "step_size": 4,
            "max_frames": 8,
            "num_samples": 1,
            "sample_idx": -1,
            "indices": (),
            "subset_size": 0,
            "batch_size": 1,
            "method": "ddim",
            "eta": 0.0,
            "respacing": "ddim25",
            "video": "mp4",
            "eval_dir": "",
            "seed": 0,
        }
    )
    config.run = ConfigDict({"output": "outputs/demo"})
    config.mesh = ConfigDict({"data": -1, "view": 1, "seq": 1, "tensor": 1})
    if variant == "mazes":
        config.data = ConfigDict({"name": "maze_walk", "frames": 48, "size": 32, "test_videos": 16})
    elif variant:
        raise ValueError(f"configs/fdm_demo.py has no variant {variant!r}; use mazes")
    return config
