"""The embedding's gradient is the slope of the loss, tied or not: measured by differences."""

import numpy as np

from nano_llama import LlamaConfig
from nano_llama.vol1_numpy.model import Llama

EMBED = "model.embed_tokens.weight"


def test_the_slope_of_the_loss():
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, 29, (2, 2, 9))
    for tied in (True, False):
        config = LlamaConfig(
            vocab_size=29, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=32, tie_word_embeddings=tied, initializer_range=0.3,
        )  # fmt: skip
        model = Llama.init(config, seed=1, dtype=np.float64, threads=1)
        gradient = model.loss_and_grads(tokens, targets)[1][EMBED]
        weight, step = model.params[EMBED], 1e-5
        unseen = next(token for token in range(29) if token not in tokens)
        for row in (int(tokens[0, 0]), int(targets[0, 0]), unseen):
            for column in (0, 7):
                weight[row, column] += step
                above = model.loss(tokens, targets)
                weight[row, column] -= 2 * step
                below = model.loss(tokens, targets)
                weight[row, column] += step
                measured = (above - below) / (2 * step)
                assert np.isclose(gradient[row, column], measured, rtol=1e-5, atol=1e-8), (
                    f"{'tied' if tied else 'untied'}: token {row} has the gradient {gradient[row, column]:.6f}, "
                    f"and the loss the slope {measured:.6f}"
                )
