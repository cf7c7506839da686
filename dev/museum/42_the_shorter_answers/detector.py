"""A text in a padded batch gets the logits that it gets alone, when it begins and while it grows."""

import numpy as np
import torch

from nano_llama import LlamaConfig
from nano_llama.vol2_torch import Llama
from nano_llama.vol3_engine.runner.padded import PaddedBatch

PROMPTS = [[5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8, 9], [11]]


def alone(model, text):
    with torch.no_grad():
        return model(torch.tensor([text]))[0, -1].numpy()


def test_company_changes_nothing():
    config = LlamaConfig(
        vocab_size=31, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    model = Llama.init(config, seed=1)
    batch, texts = PaddedBatch(model, PROMPTS, cache_length=12), [list(prompt) for prompt in PROMPTS]
    logits = batch.prefill()
    for _ in range(3):
        for row, text in enumerate(texts):
            expected = alone(model, text)
            error = abs(logits[row] - expected).max() / abs(expected).max()
            assert error < 1e-4, (
                f"a text of {len(text)} tokens beside one of 9 differs by {error:.1e} from itself alone"
            )
        for row, text in enumerate(texts):
            text.append(20 + row)
        logits = batch.decode([20 + row for row in range(3)])
    assert np.isfinite(logits).all()
