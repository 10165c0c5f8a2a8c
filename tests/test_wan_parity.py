"""The VAE and UMT5 against diffusers and transformers (pip install 'jaxvid[parity]')."""

import numpy as np
import pytest
import small_vae
from einops import rearrange

from jaxvid.wan import umt5, umt5_keys, vae, vae_keys

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
LAYOUTS = (
    {"width": 8, "multipliers": (1, 2, 4, 4), "blocks": 2},
    {"width": 6, "multipliers": (1, 1, 2, 2), "blocks": 1, "halve_time": (True, True, False)},
)


def tensors(state):
    return {name: torch.tensor(np.ascontiguousarray(a)) for name, a in state.items()}


def first(video):
    return torch.tensor(
        np.ascontiguousarray(rearrange(np.asarray(video), "b t h w c -> b c t h w"))
    )


def last(video):
    return rearrange(video.numpy(), "b c t h w -> b t h w c")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("frames", [1, 5, 9])
@torch.no_grad()
def test_vae_equals_diffusers(layout, frames):
    diffusers = pytest.importorskip("diffusers")
    config = vae.VaeConfig(**layout)
    params = small_vae.parameters(config)
    model = diffusers.AutoencoderKLWan(
        base_dim=config.width,
        z_dim=config.latent_channels,
        dim_mult=list(config.multipliers),
        num_res_blocks=config.blocks,
        temperal_downsample=list(config.halve_time),
    ).eval()
    state = vae_keys.state_dict(params)
    theirs = {vae_keys.diffusers_name(name, config.blocks): a for name, a in state.items()}
    model.load_state_dict(tensors(theirs))
    video = small_vae.video(frames, batch=2, size=(16, 24))
    mean, scale = vae.constants(config)
    latents = small_vae.jitted(vae.encode, config)(params, video)
    moments = model.encode(first(video)).latent_dist.mode()
    np.testing.assert_allclose(latents, (last(moments) - mean) * scale, rtol=1e-4, atol=2e-5)
    decoded = small_vae.jitted(vae.decode, config)(params, latents)
    expected = model.decode(first(latents / scale + mean)).sample
    np.testing.assert_allclose(
        np.clip(decoded, -1, 1), last(expected), rtol=1e-4, atol=5e-5
    )  # float32


@pytest.mark.parametrize("buckets, distance, tokens", [(32, 128, 200), (16, 40, 64), (8, 20, 40)])
@torch.no_grad()
def test_umt5_equals_transformers(buckets, distance, tokens):
    transformers = pytest.importorskip("transformers")
    config = umt5.Umt5Config(
        vocabulary=50, width=16, attention_width=24, hidden=40, heads=4, layers=3,
        buckets=buckets, max_distance=distance,
    )  # fmt: skip
    random = np.random.default_rng(0)
    params = {name: _draw(random, part) for name, part in umt5.abstract_parameters(config).items()}
    model = transformers.UMT5EncoderModel(
        transformers.UMT5Config(
            vocab_size=config.vocabulary,
            d_model=config.width,
            d_kv=6,
            d_ff=config.hidden,
            num_layers=config.layers,
            num_heads=config.heads,
            relative_attention_num_buckets=buckets,
            relative_attention_max_distance=distance,
            feed_forward_proj="gated-gelu",
            layer_norm_epsilon=config.epsilon,
        )
    ).eval()
    model.load_state_dict(tensors(umt5_keys.transformers_state_dict(params)))
    ids = random.integers(0, config.vocabulary, (2, tokens))
    mask = (np.arange(tokens) < [[tokens], [tokens // 3]]).astype(np.int32)
    expected = model(torch.tensor(ids), torch.tensor(mask)).last_hidden_state.numpy()
    blocks = [params[f"block_{i}"] for i in range(config.layers)]
    found = umt5.encode(config, params["embedding"], blocks, params["norm"], [(ids, mask)])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)  # float32


def _draw(random, part):
    if not isinstance(part, dict):
        return random.normal(size=part.shape).astype(np.float32) / part.shape[0] ** 0.5
    return {name: _draw(random, leaf) for name, leaf in part.items()}
