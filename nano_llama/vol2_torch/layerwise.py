"""A forward pass with one layer's weights in memory at a time: slower, in a fraction of the model's memory.

Tests: tests/vol2/test_layerwise.py.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from nano_llama.core.config import LlamaConfig
from nano_llama.core.names import EMBED, LM_HEAD, NORM, layer_name, layer_shapes
from nano_llama.vol2_torch.model import Block, RMSNorm, RopeTables, to_tensor
from nano_llama.vol2_torch.packing import within_window


@torch.inference_mode()
def last_logits(weights: Mapping[str, np.ndarray], config: LlamaConfig, tokens: Sequence[int]) -> np.ndarray:
    """What Llama.forward says of the token after these, in float32.    (T,) -> (V,)"""
    with torch.device("meta"):  # the layer's shape, without memory
        layer, norm = Block(config), RMSNorm(config.hidden_size, config.rms_norm_eps)

    def read(name: str) -> Tensor:
        return to_tensor(weights[name]).float()

    embedding = read(EMBED)  # (V,D)
    x = embedding[list(tokens)][None]  # (1,T,D)
    cos, sin = RopeTables(config).at(None, 0, len(tokens), x.device, x.dtype)  # (T,K/2)
    T = len(tokens)
    mask = within_window(None, config.sliding_window or T, T, 0, x.device)
    for index in range(config.num_hidden_layers):
        params = {part: read(layer_name(index, part)) for part in layer_shapes(config)}
        x = functional_call(layer, params, (x, cos, sin, mask, None))  # (1,T,D)
    last = functional_call(norm, {"weight": read(NORM)}, (x[0, -1],))  # (D,)
    head = embedding if config.tie_word_embeddings else read(LM_HEAD)  # (V,D)
    return (head @ last).numpy()
