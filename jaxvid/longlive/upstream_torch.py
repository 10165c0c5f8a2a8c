"""Upstream's own PyTorch pipeline beside ours: the same random weights, prompts and noise, in turn.

The code comes from the user's own checkout of https://github.com/NVlabs/LongLive, branch `v1.0`;
nothing of it is kept here. Its packages are imported piece by piece, because they pull in more
than sampling needs.
"""

import contextlib
import functools
import importlib
import sys
import tempfile
import types
from pathlib import Path

import jax
import numpy as np
import torch
from einops import rearrange
from ml_collections import ConfigDict

from jaxvid.core.noise import request_key
from jaxvid.core.random_tree import draw
from jaxvid.longlive import models
from jaxvid.longlive.sample import Generator
from jaxvid.longlive.sample_config import Length, Settings
from jaxvid.longlive.setup import sampling_settings
from jaxvid.runs.benchmark import Subject
from jaxvid.runs.requests import Request
from jaxvid.wan import dit, dit_files, vae, vae_keys
from jaxvid.wan.vae import VaeConfig

PROMPT = "A red tram drives through the rain."
STAGE = "one video, decoded, on the host"
HEADS, WIDTH = 12, 1536  # upstream's caches have these sizes and no others


def paired_subjects(config: ConfigDict, checkout: str) -> tuple[Subject, Subject, dict]:
    """Ours and upstream's generation of one video of the config's length.

    Returns:
      Two subjects with the same stage, and JSON values that say how far their frames agree.
    Raises:
      ValueError: no checkout there; settings that upstream's pipeline does not have.
    """
    settings = sampling_settings(config)
    check(settings)
    upstream = load(checkout)
    ours, noise = Ours(settings), Noise(settings)
    theirs = Theirs(settings, upstream, ours.text, noise)
    difference = np.abs(ours.video().astype(np.float32) - theirs.video())
    agreement = {"mean_levels_of_255": float(difference.mean()), "largest": float(difference.max())}
    print("frames differ by", ", ".join(f"{k} {v:.3g}" for k, v in agreement.items()), flush=True)
    facts = {"frames": ours.length.pixels, "dtype": settings.models.dtype}
    return (
        Subject("jaxvid", {}, {STAGE: ours.video}, facts),
        Subject("PyTorch", {}, {STAGE: theirs.video}, facts | theirs.facts),
        {"agreement": agreement},
    )


def check(settings: Settings) -> None:
    """ValueError for what upstream's pipeline cannot do, or does in another way."""
    network, rollout = settings.network, settings.rollout
    released = VaeConfig(dtype=settings.vae.dtype, convolution=settings.vae.convolution)
    wanted = {
        "models.random=True": settings.models.random,
        f"network.heads={HEADS}": network.heads == HEADS,
        f"network.width={WIDTH}": network.width == WIDTH,
        "the released vae": settings.vae == released,
        "sampling.batch_size=1": settings.sampling.batch_size == 1,
        "whole blocks": settings.length(0).made == settings.length(0).latent,
        "rollout.relative_rope=False": not rollout.relative_rope,
        "a window": rollout.window != -1,
        "one device": jax.device_count() == 1,
    }
    if missing := [name for name, there in wanted.items() if not there]:
        raise ValueError(f"--torch_checkout for LongLive needs {', '.join(missing)}")


class Noise:
    """The noise that our video has, for upstream's calls of `torch.randn_like`."""

    def __init__(self, settings: Settings):
        config = settings.rollout
        self.steps, self.starts = len(config.steps), settings.length(0).starts
        size = (self.steps, config.block, *settings.latent_shape)
        key = request_key(0, "pair")
        drawn = [jax.random.fold_in(key, frame) for frame in self.starts]
        blocks = [np.asarray(jax.random.normal(k, (int(np.prod(size)),))) for k in drawn]
        self.blocks = [torch.from_numpy(b.reshape(size).copy()) for b in blocks]

    def first(self) -> torch.Tensor:
        """(1, t, c, h, w) what every block starts from."""
        return rearrange([b[0] for b in self.blocks], "n t h w c -> 1 (n t) c h w")

    def later(self):
        """(t, c, h, w) what is added after a step, in the order in which it is asked for."""
        for block in self.blocks:
            yield from rearrange(block[1:], "s t h w c -> s t c h w")


class Ours:
    """jaxvid's side, as a run makes it."""

    def __init__(self, settings: Settings):
        length = settings.length(0)
        texts = models.embed(settings, [PROMPT])
        self.text, self.generator = texts[PROMPT], Generator(settings, texts)
        options = {"prompts": [PROMPT], "switch_frames": [], "given": 0}
        options["latent_frames"] = length.latent
        self.request = Request("pair", 0, {}, options=options)
        self.length = Length(0, length.latent, length.block, length.stride)

    def video(self) -> np.ndarray:
        """uint8 (t, h, w, 3)."""
        blocks = self.generator.blocks([self.request], self.length)
        return np.concatenate([frames[0] for frames in blocks if isinstance(frames, np.ndarray)])


class Theirs:
    """Upstream's pipeline with our weights, its own attention if that is installed."""

    def __init__(self, settings: Settings, upstream, text: np.ndarray, noise: Noise):
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = getattr(torch, settings.models.dtype)
        self.noise = noise
        attention = upstream["wan.modules.attention"]
        fused = attention.FLASH_ATTN_2_AVAILABLE or attention.FLASH_ATTN_3_AVAILABLE
        if not fused:
            upstream["wan.modules.model"].flash_attention = plain_attention
            upstream["wan.modules.causal_model"].attention = plain_attention  # theirs: bfloat16
        kind = "flash-attn" if fused else "PyTorch's scaled_dot_product_attention"
        self.facts = {"attention": kind, "device": str(self.device), "torch": torch.__version__}
        rows = torch.zeros(1, settings.network.text_length, settings.network.text_width)
        rows[0, : len(text)] = torch.from_numpy(np.asarray(text, np.float32))
        self.rows = rows.to(self.device, self.dtype)
        self.pipeline = build(settings, upstream, lambda text_prompts: {"prompt_embeds": self.rows})
        self.pipeline.generator.to(self.device, self.dtype)
        self.pipeline.vae.to(self.device, self.dtype)

    def video(self) -> np.ndarray:
        """uint8 (t, h, w, 3)."""
        first, later = self.noise.first().to(self.device, self.dtype), self.noise.later()

        def noise_like(like):
            return next(later).to(like.device, like.dtype)

        with torch.no_grad(), replaced(torch, "randn_like", noise_like), quiet():
            video = self.pipeline.inference(first, [PROMPT])
            levels = torch.round(255 * video[0]).to(torch.uint8).cpu()
        return rearrange(levels.numpy(), "t c h w -> t h w c")


def build(settings: Settings, upstream, text_encoder):
    """The pipeline of a network of our shape, with our random weights."""
    network, rollout, wrappers = settings.network, settings.rollout, upstream["utils.wan_wrapper"]
    arguments = dict(
        model_type="t2v", dim=network.width, ffn_dim=network.mlp, num_heads=network.heads,
        num_layers=network.depth, freq_dim=network.frequencies, text_dim=network.text_width,
        text_len=network.text_length, eps=network.epsilon,
    )  # fmt: skip

    def made(_, **more):
        return upstream["wan.modules.causal_model"].CausalWanModel(**arguments, **more)

    drawn = functools.partial(draw, seed=settings.models.random_seed, dtype="float32")
    tensors = dit_files.write_back(
        drawn(dit.abstract_parameters(network)), dit_files.Origin("original", "", "model.")
    )
    window = {"local_attn_size": rollout.window, "sink_size": rollout.sink}
    with replaced(wrappers.CausalWanModel, "from_pretrained", made):
        generator = wrappers.WanDiffusionWrapper(
            timestep_shift=rollout.shift, is_causal=True, **window
        )
    generator.load_state_dict(as_torch(tensors))
    decoder = vae_keys.revert(drawn(vae.abstract_parameters(settings.vae)), {})
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(as_torch(decoder), file.name)
        coder = functools.partial(wrappers._video_vae, file.name, z_dim=network.channels)
        with replaced(wrappers, "_video_vae", lambda **_: coder()):
            coding = wrappers.WanVAEWrapper()
    settings_of_theirs = types.SimpleNamespace(
        denoising_step_list=list(rollout.steps), warp_denoising_step=rollout.warp_steps,
        num_frame_per_block=rollout.block, context_noise=rollout.context_timestep,
        model_kwargs=types.SimpleNamespace(**window),
    )  # fmt: skip
    pipeline = upstream["pipeline.causal_inference"].CausalInferencePipeline(
        settings_of_theirs, "cpu", generator, text_encoder, coding
    )
    height, width, _ = settings.latent_shape
    pipeline.num_transformer_blocks = network.depth
    pipeline.frame_seq_length = int(np.prod(network.grid(1, height, width)))
    return pipeline


def as_torch(tensors) -> dict:
    """State dict of numpy arrays."""
    return {name: torch.from_numpy(np.array(a, np.float32)) for name, a in tensors.items()}


def plain_attention(q, k, v, k_lens=None, **_):
    """What upstream's `flash_attention` computes, where flash-attn is not installed."""
    heads_first = (a.transpose(1, 2) for a in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*heads_first).transpose(1, 2)


def load(checkout: str) -> dict:
    """Upstream's modules by name; ValueError if the folder holds none."""
    folder = Path(checkout).expanduser()
    if not (folder / "pipeline" / "causal_inference.py").is_file():
        raise ValueError(
            f"--torch_checkout={checkout} holds no pipeline/causal_inference.py: check out the "
            "branch v1.0 of NVlabs/LongLive"
        )
    sys.path.insert(0, str(folder))
    for name in ("wan", "pipeline"):  # without their __init__, which imports training
        package = types.ModuleType(name)
        package.__path__ = [str(folder / name)]
        sys.modules[name] = package
    names = ("wan.modules.attention", "wan.modules.model", "wan.modules.causal_model")
    names += ("utils.wan_wrapper", "pipeline.causal_inference")
    here = contextlib.nullcontext()
    if not torch.cuda.is_available():  # which they ask for while they are imported
        here = replaced(torch.cuda, "current_device", lambda: 0)
    with here:
        return {name: importlib.import_module(name) for name in names}


@contextlib.contextmanager
def replaced(owner, name: str, value):
    """Another attribute for the time of the block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def quiet():
    """Nothing is printed in the block."""
    with contextlib.redirect_stdout(None):
        yield
