"""One layer's weights at a time (nano_llama/vol2_torch/layerwise.py): the same logits as the whole model's."""

import numpy as np
import pytest
import torch

from nano_llama.core.config import LlamaConfig
from nano_llama.core.init import init_params
from nano_llama.formats import open_model, save_hf
from nano_llama.vol2_torch import Llama
from nano_llama.vol2_torch.layerwise import last_logits


@pytest.mark.parametrize(("tied", "variant"), [(True, {}), (False, {"hidden_act": "relu2", "sliding_window": 3})])
def test_the_logits_of_the_whole_model(tmp_path, tied, variant):
    config = LlamaConfig(vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied,
                         max_position_embeddings=64, initializer_range=0.3, **variant)  # fmt: skip
    save_hf(tmp_path / "model", config, init_params(config, seed=5))
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    model = Llama.from_pretrained(tmp_path / "model")
    with torch.no_grad(), open_model(tmp_path / "model") as weights:
        expected = model(torch.tensor([tokens]))[0, -1].numpy()
        found = last_logits(weights, config, tokens)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-5)
