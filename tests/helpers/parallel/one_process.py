"""A small model, its batches, and its gradients in one process: what cases of cp and pp are compared with.

The batches have ignored targets, of which ranks hold different numbers however a batch is divided.
"""

from functools import lru_cache

import torch

from nano_llama.core.config import LlamaConfig
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.loss import loss_sum
from nano_llama.vol2_torch.model import Llama

B, T = 8, 24


def model(tied=True, dtype=torch.float32):
    config = LlamaConfig(
        vocab_size=65, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=32, tie_word_embeddings=tied,
    )  # fmt: skip
    return Llama.init(config, seed=0, dtype=dtype)


def batch(step, length=T):
    generator = torch.Generator().manual_seed(step % 4)
    ids = torch.randint(0, 65, (B, length + 1), generator=generator)
    tokens, targets = ids[:, :-1].contiguous(), ids[:, 1:].clone()
    targets[0, : length // 2] = targets[3] = targets[5, 5:] = IGNORE_INDEX
    return tokens, targets


def documents(step):
    """(B,T): in each row two or three documents of different lengths."""
    generator = torch.Generator().manual_seed(100 + step)
    return (torch.rand(B, T, generator=generator) < 0.1).cumsum(1)


@lru_cache
def gradients(tied=True, dtype=torch.float64, length=T, packed=False):
    """{name: gradient} of the mean over the counted targets of the first batch."""
    llama = model(tied, dtype)
    tokens, targets = batch(0, length)
    nats = loss_sum(llama, tokens, targets, documents=documents(0) if packed else None)
    (nats / (targets != IGNORE_INDEX).sum()).backward()
    return {name: parameter.grad for name, parameter in llama.named_params().items()}


def differences(got, expected):
    """{name: largest difference of each tensor, relative to its largest number}, of those in `got`."""
    return {
        name: ((got[name] - expected[name]).abs().max() / expected[name].abs().max().clamp(min=1e-12)).item()
        for name in got
    }
