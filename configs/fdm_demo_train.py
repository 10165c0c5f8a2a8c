"""Trains the demo model of `data/` on rendered maze walks, 32x32, on a CPU.

python scripts/train.py --config=configs/fdm_demo_train.py --config.run.output=runs/demo
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """`tiny` is a few seconds of training for tests."""
    config = ConfigDict({"mode": "fdm"})
    config.network = ConfigDict(
        {"image_size": 32, "channels": 32, "channel_mult": (1, 2, 3), "attention_at": (2, 4)}
    )
    config.diffusion = ConfigDict({"schedule": "cosine", "predict": "clean"})
    config.data = ConfigDict({"name": "maze_walk", "size": 32, "frames": 60, "train_videos": 800})
    config.train = ConfigDict(
        {
            "steps": 2500,
            "batch_size": 4,
            "max_frames": 8,
            "lr": 1e-3,
            "lr_anneal_steps": 2500,
            "ema_rates": (0.998,),
            "loss_average": "masked",
            "log_every": 20,
            "save_every": 250,
            "sample_every": 1000,
        }
    )
    config.run = ConfigDict({"output": "", "start_from": "", "stop_after": 0.0})
    config.mesh = ConfigDict({"data": -1, "view": 1, "seq": 1, "tensor": 1})
    if variant == "tiny":
        config.network.channel_mult, config.network.attention_at = (1, 1), (2,)
        config.data.update({"frames": 12, "train_videos": 4, "size": 16})
        config.network.image_size = 16
        config.diffusion.update({"steps": 50})
        config.train.update({"steps": 6, "batch_size": 2, "max_frames": 5, "lr_anneal_steps": 0})
        config.train.update({"log_every": 2, "save_every": 3, "sample_every": 0})
    elif variant:
        raise ValueError(f"configs/fdm_demo_train.py has no variant {variant!r}; use tiny")
    return config
