"""Weight decay shrinks matrices and nothing else: no gain of a norm, no bias, no vector of lengths."""

import numpy as np

from nano_llama import LlamaConfig
from nano_llama.core.names import is_decayed
from nano_llama.core.vision.names import LAYER_PARTS
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.optim import make_optimizer

CONFIG = LlamaConfig(
    vocab_size=9, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=8,
)  # fmt: skip


def test_a_step_without_a_gradient_shrinks_the_matrices_only():
    params = Llama.init(CONFIG).params
    before = {name: param.copy() for name, param in params.items()}
    optimizer = make_optimizer("adamw", params, 0.1, weight_decay=0.5)
    optimizer.step(params, {name: np.zeros_like(param) for name, param in params.items()})
    for name, param in params.items():
        expected = 0.95 if param.ndim == 2 else 1.0
        ratio = float(param.flat[0] / before[name].flat[0])
        assert np.allclose(param, before[name] * expected), (
            f"a step without any gradient multiplies {name} by {ratio:.3g} instead of {expected}"
        )


def test_an_image_encoder_s_and_an_adapter_s_parameters():
    for part in LAYER_PARTS:
        matrix = part.endswith(".weight") and "norm" not in part
        assert is_decayed(f"encoder.layers.0.{part}") == matrix, f"in an image encoder, {part} is treated wrongly"
    for part, matrix in (("lora_A", True), ("lora_B", True), ("lora_magnitude_vector", False)):
        name = f"model.layers.0.self_attn.q_proj.{part}"
        assert is_decayed(name) == matrix, f"in an adapter, {part} is treated wrongly"
