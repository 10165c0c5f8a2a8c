"""Settings of a training run, ours and in upstream's terms."""

import dataclasses

from jaxvid.core.mesh import MeshConfig
from jaxvid.data.sources import DataConfig
from jaxvid.fdm import train
from jaxvid.fdm.process import DiffusionConfig
from jaxvid.fdm.unet import UNetConfig
from jaxvid.runs.training_settings import LOOP_FIELDS, RunConfig


@dataclasses.dataclass(frozen=True)
class Setup:
    """All settings of a run."""

    network: UNetConfig
    diffusion: DiffusionConfig
    data: DataConfig
    train: train.TrainConfig
    run: RunConfig
    mesh: MeshConfig

    def __post_init__(self):
        self.run.check()

    @property
    def fingerprint(self) -> dict:
        """What a resumed run must share with the one it continues."""
        fields = {
            name: dataclasses.asdict(getattr(self, name)) for name in ("network", "diffusion")
        }
        settings = dataclasses.asdict(self.train)
        fields["train"] = {name: settings[name] for name in settings if name not in LOOP_FIELDS}
        fields["data"] = dataclasses.asdict(self.data) | {"cache_mb": 0, "root": ""}
        del fields["data"]["probes"]
        return fields


def upstream_arguments(setup: Setup) -> dict:
    """The settings in the names of upstream's training arguments."""
    network, diffusion, config = setup.network, setup.diffusion, setup.train
    size = network.image_size
    return {
        "dataset": setup.data.name,
        "T": network.train_frames or setup.data.frames or -1,
        "max_frames": config.max_frames,
        "image_size": size,
        "num_channels": network.channels,
        "num_res_blocks": network.res_blocks,
        "num_heads": network.heads,
        "num_heads_upsample": network.heads_up,
        "attention_resolutions": ",".join(str(size // n) for n in network.attention_at),
        "dropout": network.dropout,
        "use_scale_shift_norm": network.scale_shift_norm,
        "use_rpe_net": network.positions == "network",
        **dict(zip(("rp_alpha", "rp_beta", "rp_gamma"), network.buckets, strict=False)),
        "use_frame_encoding": network.frame_encoding,
        "enforce_position_invariance": network.centre_frames,
        "allow_interactions_between_padding": network.padding_attends,
        "use_checkpoint": network.remat,
        "learn_sigma": diffusion.variance == "learned_range",
        "sigma_small": diffusion.variance == "fixed_small",
        "diffusion_steps": diffusion.steps,
        "noise_schedule": diffusion.schedule,
        "timestep_respacing": "",
        "use_kl": diffusion.loss == "kl",
        "predict_xstart": diffusion.predict == "clean",
        "rescale_timesteps": diffusion.rescale_timesteps,
        "lr": config.lr,
        "batch_size": config.batch_size,
        "ema_rate": ",".join(map(str, config.ema_rates)),
        "weight_decay": config.weight_decay,
        "lr_anneal_steps": config.lr_anneal_steps,
        "pad_with_random_frames": config.pad_with_random_frames,
        "mask_distribution": config.mask_distribution,
    }
