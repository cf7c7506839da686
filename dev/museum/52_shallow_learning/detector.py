"""Every parameter of the model has the gradient that differences measure."""

import numpy as np

from nano_llama import LlamaConfig
from nano_llama.vol1_numpy.gradcheck import gradcheck_model
from nano_llama.vol1_numpy.model import Llama


def test_gradients_of_the_whole_model():
    config = LlamaConfig(
        vocab_size=17, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, initializer_range=0.3,
    )  # fmt: skip
    tokens, targets = np.random.default_rng(0).integers(0, 17, (2, 2, 6))
    gradcheck_model(Llama.init(config, seed=1, dtype=np.float64, threads=1), tokens, targets, samples=3)
