"""What every axis is compared with: a small model, its batches, and what one process makes of them.

The batches have ignored targets, of which ranks hold different numbers however a batch is divided.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F

from nano_llama.core.config import LlamaConfig
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.loss import loss_sum
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.optim import Muon

B, T, STEPS = 8, 24, 20


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


def exact_head_loss(hidden, weight, targets, z_loss=0.0):
    """`head_loss` in the format of its inputs, where that one is in float32."""
    return F.cross_entropy(F.linear(hidden, weight), targets, ignore_index=IGNORE_INDEX, reduction="sum")


def optimizers(named, kind):
    """For {name: parameter}: AdamW for all, or Muon for the matrices inside the layers."""
    hidden = [p for name, p in named.items() if kind == "muon" and p.dim() == 2 and ".layers." in name]
    others = [p for p in named.values() if not any(p is matrix for matrix in hidden)]
    made = [torch.optim.AdamW(others, lr=3e-3, weight_decay=0.1, betas=(0.9, 0.95))]
    return made + ([Muon(hidden, lr=3e-3, weight_decay=0.1)] if hidden else [])


def clip(grads, norm):
    torch._foreach_mul_(grads, min(1.0, 1.0 / (norm + 1e-6)))


@lru_cache
def gradients(tied=True, dtype=torch.float64, length=T, packed=False):
    """{name: gradient} of the mean over the counted targets of the first batch."""
    llama = model(tied, dtype)
    tokens, targets = batch(0, length)
    nats = loss_sum(llama, tokens, targets, exact_head_loss, documents=documents(0) if packed else None)
    (nats / (targets != IGNORE_INDEX).sum()).backward()
    return {name: parameter.grad for name, parameter in llama.named_params().items()}


@lru_cache
def losses(tied=True, kind="adamw"):
    """The losses of 20 steps in float32, clipped at 1."""
    llama = model(tied)
    made, found = optimizers(llama.named_params(), kind), []
    for step in range(STEPS):
        tokens, targets = batch(step)
        loss = loss_sum(llama, tokens, targets) / (targets != IGNORE_INDEX).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(llama.parameters(), 1.0)
        for optimizer in made:
            optimizer.step()
            optimizer.zero_grad()
        found.append(loss.item())
    return found


def differences(got, expected):
    """{name: largest difference of each tensor, relative to its largest number}, of those in `got`."""
    return {
        name: ((got[name] - expected[name]).abs().max() / expected[name].abs().max().clamp(min=1e-12)).item()
        for name in got
    }
