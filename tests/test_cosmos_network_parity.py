"""One view of the network against diffusers' transformer and control network, random weights.

They are the single-view relatives of ours: the same blocks, embeddings, positions and hints, no
view channels, no layers before the control branch.
"""

import importlib
import re
import types

import jax
import numpy as np
import pytest
from einops import rearrange
from small_cosmos import velocity

from jaxvid.core.convert import to_ours
from jaxvid.cosmos import keys, model
from jaxvid.cosmos.dit import tiny

pytestmark = pytest.mark.parity

RENAMED = (  # diffusers' names to upstream's
    (r"transformer_blocks\.", "blocks."),
    (r"attn1", "self_attn"),
    (r"attn2", "cross_attn"),
    (r"\.to_([qkv])\.", r".\1_proj."),
    (r"\.to_out\.0\.", ".output_proj."),
    (r"\.norm_([qk])\.", r".\1_norm."),
    (r"\.ff\.net\.0\.proj\.", ".mlp.layer1."),
    (r"\.ff\.net\.2\.", ".mlp.layer2."),
    (r"\.norm1\.linear_", ".adaln_modulation_self_attn."),
    (r"\.norm2\.linear_", ".adaln_modulation_cross_attn."),
    (r"\.norm3\.linear_", ".adaln_modulation_mlp."),
    (r"^patch_embed\.proj\.", "x_embedder.proj.1."),
    (r"^time_embed\.t_embedder\.", "t_embedder.1."),
    (r"^time_embed\.norm\.", "t_embedding_norm."),
    (r"^norm_out\.linear_", "final_layer.adaln_modulation."),
    (r"^proj_out\.", "final_layer.linear."),
)


def upstream_names(state: dict) -> dict:
    found = {}
    for name, tensor in state.items():
        for pattern, new in RENAMED:
            name = re.sub(pattern, new, name)
        found[name] = tensor.numpy()
    return found


def networks(torch, diffusers, config):
    """Their transformer and control network, which share embedders and text projection."""
    torch.manual_seed(0)
    shared = {
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_width,
        "mlp_ratio": config.mlp / config.width,
        "text_embed_dim": config.text_width,
        "adaln_lora_dim": config.modulation_rank,
        "rope_scale": config.stretch,
        "extra_pos_embed_type": None,
        "use_crossattn_projection": True,
        "crossattn_proj_in_channels": config.text_in,
        "encoder_hidden_states_channels": config.text_width,
    }
    base = diffusers.CosmosTransformer3DModel(
        in_channels=config.channels + 1, out_channels=config.channels, num_layers=config.depth,
        controlnet_block_every_n=config.control_every, **shared,
    )  # fmt: skip
    control = diffusers.CosmosControlNetModel(
        n_controlnet_blocks=len(config.hinted), model_channels=config.width,
        in_channels=config.channels * config.modalities + 2, latent_channels=config.channels + 2,
        **shared,
    )  # fmt: skip
    for tensor in (*base.parameters(), *control.parameters()):
        torch.nn.init.normal_(tensor, std=0.2)
    for ours, theirs in (
        (control.patch_embed_base, base.patch_embed),
        (control.time_embed, base.time_embed),
        (control.crossattn_proj, base.crossattn_proj),
    ):
        ours.load_state_dict(theirs.state_dict())
    return base, control


@pytest.fixture
def nearest(monkeypatch):
    """Stands for torchvision's resize of masks, the only thing of it that is used."""
    torch = pytest.importorskip("torch")
    for module in ("transformers.transformer_cosmos", "controlnets.controlnet_cosmos"):
        module = importlib.import_module(f"diffusers.models.{module}")
        resize = lambda x, size, interpolation: torch.nn.functional.interpolate(x, size)  # noqa: E731
        stand_in = types.SimpleNamespace(
            functional=types.SimpleNamespace(resize=resize),
            InterpolationMode=types.SimpleNamespace(NEAREST="nearest"),
        )
        monkeypatch.setattr(module, "transforms", stand_in, raising=False)


def test_equals_diffusers(nearest):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    config = tiny(view_channels=0, hint=False, modalities=3, depth=3, stretch=(2.0, 3.0, 1.0))
    base, control = networks(torch, diffusers, config)
    state = upstream_names(base.state_dict())
    branch = upstream_names(control.state_dict())
    state["control_embedder.proj.1.weight"] = branch["x_embedder.proj.1.weight"]
    state |= {name: a for name, a in branch.items() if name.startswith("control_blocks.")}
    params = to_ours(state, keys.RULES, expected=model.abstract_parameters(config))

    random = np.random.default_rng(0)
    normal = lambda *shape: random.normal(size=shape).astype(np.float32)  # noqa: E731
    x, hint = normal(2, 3, 4, 6, 4), normal(2, 3, 4, 6, 8)  # (b, t, h, w, c)
    text, timestep = normal(2, 9, config.text_in), np.array([0.0, 937.0], np.float32)
    given = np.array([[1, 0, 0], [1, 1, 0]], np.float32)
    padding = (random.random((1, 32, 48)) < 0.5).astype(np.float32)
    ours = jax.jit(velocity, static_argnums=0)(
        config, params, x[:, None], timestep, text[:, None], hint[:, None], given=given[:, None],
        view_ids=np.array([0]), control_scale=0.7, padding=np.concatenate([padding] * 2),
    )[:, 0]  # fmt: skip

    tensor = lambda a: torch.from_numpy(np.ascontiguousarray(a))  # noqa: E731
    video = lambda a: tensor(rearrange(a, "b t h w c -> b c t h w"))  # noqa: E731
    mask = video(np.broadcast_to(given[..., None, None, None], (*x.shape[:-1], 1)))
    both = {
        "timestep": tensor(timestep * config.timestep_scale),
        "encoder_hidden_states": tensor(text),
        "condition_mask": mask,
        "padding_mask": tensor(padding[:, None]),
        "return_dict": False,
    }
    with torch.no_grad():
        (hints,) = control(video(hint), video(x), conditioning_scale=0.7, **both)
        (wanted,) = base(video(x), block_controlnet_hidden_states=hints, **both)
    wanted = rearrange(wanted.numpy(), "b c t h w -> b t h w c")
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(ours / scale, wanted / scale, atol=2e-5)  # float32 on both sides
