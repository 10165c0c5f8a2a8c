"""Seven driving cameras at once with Cosmos-Transfer2.5, from control videos and a prompt.

python scripts/sample.py --config=configs/cosmos_multiview.py:tiny
python scripts/sample.py --config=configs/cosmos_multiview.py:tiny_multirun
python scripts/sample.py --config=configs/cosmos_multiview.py \\
  --config.sampling.specs=data/multiview/crossing.json
python scripts/sample.py --config=configs/cosmos_multiview.py:multirun \\
  --config.multirun.controls=controls --config.multirun.prompts=prompts

Other fields of `multirun` choose input videos, base parameters, views, clips, and what becomes of
clips that lack something; see cosmos/multirun.py.
"""

from ml_collections import ConfigDict

from jaxvid.core.config import section
from jaxvid.core.mesh import MeshConfig
from jaxvid.cosmos.dit import DitConfig
from jaxvid.cosmos.multirun import MultirunConfig
from jaxvid.cosmos.prompts import PromptConfig
from jaxvid.cosmos.safety import SafetyConfig
from jaxvid.cosmos.sample import SamplerConfig
from jaxvid.cosmos.sample_config import ModelConfig, SampleConfig
from jaxvid.cosmos.spec import Overrides
from jaxvid.cosmos.text import TextConfig
from jaxvid.runs.config import RunConfig
from jaxvid.wan.vae import VaeConfig

VARIANTS = ("tiny", "tiny_multirun", "multiview", "autoregressive", "cross_view", "multirun")


def get_config(variant: str = "multiview") -> ConfigDict:
    """`tiny...` draw small networks at random and need no files; the others need the downloads."""
    config = ConfigDict({"mode": "cosmos"})
    config.sampling = section(SampleConfig, specs=("data/multiview/crossing.json",))
    config.overrides = section(Overrides)  # of values in the spec files
    config.sampler = section(SamplerConfig)
    config.safety = section(SafetyConfig)
    config.text = section(PromptConfig)
    config.models = section(ModelConfig)
    config.network = section(DitConfig)  # of models.random only, like the next
    config.vae = section(VaeConfig)
    config.encoder = section(TextConfig)  # of text.random only
    config.mesh = section(MeshConfig, data=1, seq=-1)  # the tokens of all views over all devices
    config.multirun = section(MultirunConfig)  # every clip with every prompt, without spec files
    config.run = section(RunConfig, output=f"outputs/cosmos_{variant}")
    if variant.startswith("tiny"):
        config.update(tiny())
    if variant == "tiny_multirun":
        config.sampling.specs = ()
        folders = {name: f"data/multiview/{name}" for name in ("controls", "prompts")}
        config.multirun.update(uids=("crossing",), **folders)
    elif variant == "autoregressive":
        config.sampling.update(specs=("data/multiview/crossing_long.json",), whole_controls=True)
    elif variant == "cross_view":
        config.models.transformer = "checkpoints/cosmos_multiview_crossview"  # converted
        # Of upstream's robots: 93 frames of three cameras, here those with ids 0 to 2.
        config.sampling.update(specs=("data/multiview/crossing_three.json",), latent_frames=24,
                               height=432, width=768)  # fmt: skip
    elif variant == "multirun":
        config.sampling.specs = ()
        config.run.output = "outputs/multirun"
    elif variant not in ("multiview", "tiny"):
        raise ValueError(f"config cosmos_multiview has no variant {variant!r}; known: {VARIANTS}")
    return config


def tiny() -> dict:
    """Everything of the real thing, small: 3 chunks of 9 frames of 7 views."""
    return {
        "sampling": {
            "specs": ("data/multiview/crossing_long.json",),
            "height": 72,
            "width": 128,
            "latent_frames": 3,
            "files": ("combined", "views", "grid", "control_grid"),
            "probes": "",
        },
        "overrides": {"num_steps": 4},
        "models": {"random": True, "dtype": "float32"},
        "text": {
            "random": True,
            "encoder": "",
            "tokenizer": "data/tokenizer_qwen",
            "embeddings": "",
            "dtype": "float32",
        },
        "network": {
            "depth": 2,
            "width": 48,
            "heads": 2,
            "mlp": 96,
            "modulation_rank": 8,
            "text_in": 64,
            "text_width": 32,
            "control_every": 1,
        },
        "vae": {"width": 8, "blocks": 1, "multipliers": (1, 1, 1), "halve_time": (True, True)},
        "encoder": {
            "vocabulary": 384,
            "width": 32,
            "hidden": 64,
            "layers": 2,
            "heads": 2,
            "key_heads": 1,
        },
    }
