"""The bidirectional transformer against diffusers' WanTransformer3DModel, random weights."""

import jax
import numpy as np
import pytest
from einops import rearrange

from jaxvid.core.config import build
from jaxvid.wan import dit_files
from jaxvid.wan.dit import Dit, WanConfig

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(("frames", "height", "width"), [(3, 6, 10), (1, 4, 4)])
def test_equals_diffusers(tmp_path, frames, height, width):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=24, in_channels=8,
        out_channels=8, text_dim=12, freq_dim=32, ffn_dim=40, num_layers=3, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads", eps=1e-6,
    )  # fmt: skip
    for tensor in theirs.parameters():
        torch.nn.init.normal_(tensor, std=0.2)
    theirs.save_pretrained(tmp_path)
    sources = [tmp_path / "diffusion_pytorch_model.safetensors", tmp_path / "config.json"]
    params, info = dit_files.convert(sources)
    assert info["origin"]["layout"] == "diffusers"
    config = build(WanConfig, info["network"])
    random = np.random.default_rng(0)
    x = random.normal(size=(2, frames, height, width, 8)).astype(np.float32)
    text = random.normal(size=(2, config.text_length, 12)).astype(np.float32)
    times = np.asarray([[0.0], [937.5]], np.float32)
    ours = jax.jit(Dit(config).apply)({"params": params}, x, times, text)[0]
    with torch.no_grad():
        wanted = theirs(
            torch.from_numpy(rearrange(x, "b t h w c -> b c t h w")),
            torch.from_numpy(times[:, 0]),
            torch.from_numpy(text),
        ).sample
    wanted = rearrange(wanted.numpy(), "b c t h w -> b t h w c")
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(ours / scale, wanted / scale, atol=2e-5)  # float32 on both sides
