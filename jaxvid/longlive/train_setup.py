"""Checked settings of a LongLive training run from a config file."""

import dataclasses

from ml_collections import ConfigDict

from jaxvid.core import checkpoint
from jaxvid.core.mesh import MeshConfig
from jaxvid.longlive import models as files
from jaxvid.longlive.recipe import Recipe
from jaxvid.longlive.rollout import RolloutConfig
from jaxvid.longlive.sample_config import check_release
from jaxvid.longlive.setup import build_section, refuse_sizes
from jaxvid.longlive.train_config import DataConfig, TrainConfig, TrainModelConfig
from jaxvid.runs.training_settings import LOOP_FIELDS, RunConfig
from jaxvid.wan import dit_files
from jaxvid.wan.dit import WanConfig
from jaxvid.wan.umt5 import Umt5Config
from jaxvid.wan.vae import VaeConfig

CRITIC = (*dit_files.CRITIC, "model")  # entries of a file of the critic; it may be flat as well
SECTIONS = {
    "train": TrainConfig,
    "data": DataConfig,
    "rollout": RolloutConfig,
    "models": TrainModelConfig,
    "run": RunConfig,
    "mesh": MeshConfig,
}
NETWORKS = {  # of models.random
    "network": WanConfig,
    "critic": WanConfig,
    "teacher": WanConfig,
    "vae": VaeConfig,
    "text": Umt5Config,
}
HALF = "bfloat16"


@dataclasses.dataclass(frozen=True)
class Setup:
    """All settings of a run; `models`, `network`, `vae` and `text` as sampling has them."""

    train: TrainConfig
    data: DataConfig
    rollout: RolloutConfig
    models: TrainModelConfig
    run: RunConfig
    mesh: MeshConfig
    network: WanConfig
    critic: WanConfig
    teacher: WanConfig
    vae: VaeConfig
    text: Umt5Config
    lora_scale: float = 0.0  # of the adapters that are trained; 0: none are
    critic_scale: float = 0.0

    def __post_init__(self):
        self.run.check()
        if self.run.start_from:
            raise ValueError(
                f"run.start_from={self.run.start_from}: name the generator to start from in "
                "models.transformer, and the critic in models.critic"
            )
        train, block = self.train, self.rollout.block
        train.check_block(block)
        if train.stage == "ode" and 0 in self.rollout.steps:
            raise ValueError("rollout.steps must not hold 0: it is added for the clean end")
        if self.rollout.relative_rope and not train.distils:
            raise ValueError(
                f"rollout.relative_rope=True has no effect on train.stage={train.stage}, which "
                "looks at whole videos: set it when sampling, and leave it False here"
            )
        self.network.grid(train.frames, *self.latent_shape[:2])
        for name, network in self._networks.items():
            check_release(name, network, self.vae, self.text)
        longest = train.max_frames if train.stage == "streaming" else train.frames
        self.rollout.cache_window(max(longest, train.sample_frames if train.sample_every else 0))

    @property
    def _networks(self) -> dict[str, WanConfig]:
        scores = {"critic": self.critic, "teacher": self.teacher} if self.train.distils else {}
        return {"generator": self.network, **scores}

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(h, w, c) of a latent frame."""
        size = self.vae.latent_size(self.data.height, self.data.width)
        return (*size, self.vae.latent_channels)

    @property
    def recipe(self) -> Recipe:
        return Recipe(
            self.train,
            self.rollout,
            dataclasses.replace(self.network, remat=self.train.remat),
            dataclasses.replace(self.critic, remat=self.train.remat),
            self.teacher,
            self.models.dtype,
            self.latent_shape,
            self.lora_scale,
            self.critic_scale,
        )

    @property
    def fingerprint(self) -> dict:
        """What a resumed run must share with the one it continues."""
        train = dataclasses.asdict(self.train)
        free = (*LOOP_FIELDS, "sample_frames", "remat")
        data = dataclasses.asdict(self.data)
        listed = ("latents", "prompts_ahead")
        return {
            "train": {name: train[name] for name in train if name not in free},
            "data": {name: data[name] for name in data if name not in listed},
            "rollout": dataclasses.asdict(self.rollout),
            "models": {"text": files.text_identity(self), **self._frozen},
            **{name: dataclasses.asdict(net) for name, net in self._networks.items()},
        }

    @property
    def _frozen(self) -> dict:
        """What tells apart the networks that do not learn, which no checkpoint of a run holds."""
        models = self.models
        found = {"dtype": models.dtype, "use_ema": models.use_ema}
        if models.random:
            return found | {"random_seed": models.random_seed}
        stays = {
            "transformer": self.lora_scale,
            "critic": self.critic_scale,
            "teacher": self.train.distils,
            "vae": self.train.stage in ("flow_matching", "streaming"),
        }
        return found | {n: checkpoint.identity(getattr(models, n)) for n in stays if stays[n]}


def training_setup(config: ConfigDict) -> Setup:
    """The settings of a training run, with the shapes of the networks from their files.

    Raises:
      ValueError: see config.build; files that are not there or do not fit; sizes that the networks
        or the stage cannot take.
    """
    if unknown := sorted(set(config) - {"mode", *SECTIONS, *NETWORKS}):
        known = ", ".join(("mode", *SECTIONS, *NETWORKS))
        raise ValueError(f"config.{unknown[0]} is not a section; known: {known}")
    sections = {name: build_section(cls, config, name) for name, cls in SECTIONS.items()}
    networks = {name: build_section(cls, config, name) for name, cls in NETWORKS.items()}
    train, models = sections["train"], sections["models"]
    if models.lora and not train.lora_rank:
        raise ValueError(
            f"models.lora={models.lora} is where adapters start: set train.lora_rank to its rank, "
            "or train whole networks from a checkpoint with it merged in (scripts/convert.py)"
        )
    if models.critic_lora and not (train.lora_rank and train.lora_critic):
        raise ValueError(f"models.critic_lora={models.critic_lora} needs train.lora_rank")
    if (models.lora_rank or models.lora_alpha) and not (models.lora or models.critic_lora):
        raise ValueError(
            "models.lora_rank and models.lora_alpha are about the files models.lora and "
            "models.critic_lora: fresh adapters take train.lora_rank and train.lora_alpha"
        )
    if models.random:
        half = {n: dataclasses.replace(networks[n], dtype=models.dtype) for n in ("vae", "text")}
        return Setup(**sections, **networks | half, **_scales(train, models, networks))
    refuse_sizes(networks)
    found = _described(train, models)
    return Setup(**sections, **found, **_scales(train, models, found))


def _described(train: TrainConfig, models: TrainModelConfig) -> dict:
    """Shapes of the networks of files; the critic and the teacher only where they take part."""
    plain = dataclasses.replace(models, use_ema=False)
    found = {"network": files.describe_transformer(models)[0]}
    scores = {"critic": CRITIC, "teacher": ()} if train.distils else {}
    for field, names in scores.items():
        found[field] = files.describe_transformer(plain, field, names)[0]
    rest = {name: found["network"] for name in ("critic", "teacher") if name not in found}
    vae, text = files.describe_vae(models), files.describe_encoder(models)
    return found | rest | {"vae": vae, "text": text}


def _scales(train: TrainConfig, models: TrainModelConfig, networks: dict) -> dict:
    """Strength of the adapters; ValueError if those to start from have another rank."""
    if not train.lora_rank:
        return {}
    fresh = (train.lora_alpha or train.lora_rank) / train.lora_rank
    scales = {"lora_scale": fresh}
    if train.distils and train.lora_critic:
        scales["critic_scale"] = fresh
    starts = {"lora_scale": ("lora", "network", dit_files.LORAS),
              "critic_scale": ("critic_lora", "critic", dit_files.CRITIC_LORAS)}  # fmt: skip
    for name, (field, network, names) in starts.items():
        if not getattr(models, field):
            continue
        lora = files.read_lora(models, networks[network], field, names)[1]
        if lora.rank != train.lora_rank:
            raise ValueError(
                f"models.{field} has rank {lora.rank}, train.lora_rank={train.lora_rank}: "
                "use the rank it has"
            )
        scales[name] = lora.scale
    return scales
