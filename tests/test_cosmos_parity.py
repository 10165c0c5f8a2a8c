"""Cosmos' text encoder against transformers (pip install 'jaxvid[parity]')."""

import json

import numpy as np
import pytest
from test_cosmos_text import TOKENIZER

from jaxvid.cosmos import text, text_keys, tokens

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize(("heads", "key_heads", "layers"), [(4, 2, 3), (2, 1, 2), (6, 6, 1)])
@torch.no_grad()
def test_states_equal_transformers(heads, key_heads, layers):
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen

    pairs = 8  # of a head, shared out to the three axes
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6}
    config = qwen.Qwen2_5_VLTextConfig(
        vocab_size=80,
        hidden_size=2 * pairs * heads,
        intermediate_size=56,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        rms_norm_eps=1e-6,
        rope_parameters=rope,
        rope_scaling=rope,
        pad_token_id=None,
        attn_implementation="eager",
    )
    torch.manual_seed(0)
    model = qwen.Qwen2_5_VLTextModel(config).eval()
    for parameter in model.parameters():
        parameter.normal_(0.1 if parameter.ndim == 1 else 0, parameter.shape[-1] ** -0.5)
    state = {f"model.language_model.{name}": a.numpy() for name, a in model.state_dict().items()}
    ours, params = text_keys.parameters(state, heads=heads)
    assert (ours.heads, ours.key_heads, ours.layers) == (heads, key_heads, layers)
    ids = np.random.default_rng(0).integers(80, size=(2, 40))
    output = model(input_ids=torch.tensor(ids), output_hidden_states=True, use_cache=False)
    blocks = [params[f"block_{i}"] for i in range(layers)]
    arguments = (ours, params["embedding"], blocks, params["norm"], ids)
    theirs = output.hidden_states[1:]
    for state, expected in zip(text.states(*arguments), theirs, strict=True):
        np.testing.assert_allclose(state, expected, rtol=2e-4, atol=2e-5)
    spread = [(h - h.mean(-1, keepdim=True)) / (h.std(-1, keepdim=True) + 1e-8) for h in theirs]
    expected = torch.cat(spread, dim=-1)
    np.testing.assert_allclose(text.embeddings(*arguments), expected, rtol=2e-4, atol=2e-5)


def test_tokens_equal_transformers(tmp_path):
    content = json.loads((TOKENIZER / "tokenizer.json").read_text())
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(TOKENIZER / "tokenizer.json"), pad_token="<|endoftext|>"
    )
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m)
              for m in content["model"]["merges"]]  # fmt: skip
    qwen = transformers.Qwen2Tokenizer(vocab=content["model"]["vocab"], merges=merges)
    qwen.add_special_tokens({"additional_special_tokens": list(tokens.SPECIAL)})
    texts = ["A car isn't 12 km/h fast.", " ", "Größe\n\n  世界 cafe\u0301  ", "night " * 900]
    chats = [tokens.rendered(prompt) for prompt in texts]
    ours = tokens.Tokenizer(TOKENIZER)(texts)
    for reference in (theirs, qwen):
        for row, chat in zip(ours, chats, strict=True):
            ids = reference(chat, add_special_tokens=False)["input_ids"][:512]
            padded = ids + [content["added_tokens"][0]["id"]] * (512 - len(ids))
            np.testing.assert_array_equal(row, padded)
