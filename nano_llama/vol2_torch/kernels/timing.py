"""Attention's two forms timed on a card at a run's own shape: what `--attention auto` decides by.

Forward and backward, some times each by the card's own clock; the least counts, since all else that runs there only
adds. Tests: tests/vol2/kernels/test_timing.py (with a clock that is handed in).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from nano_llama.core.config import LlamaConfig
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.kernels.flash_attention import flash_attention
from nano_llama.vol2_torch.packing import within_documents

WARM_UPS = 2  # the first call compiles
REPEATS = 5

Clock = Callable[[Callable[[], Any]], float]  # does the work once -> seconds


def attention_seconds(
    config: LlamaConfig, settings: TrainSettings, device: torch.device, dtype: torch.dtype, clock: Clock | None = None
) -> dict[str, float]:
    """Of one layer, forward and backward, for one batch of the run: {"sdpa": seconds, "triton": seconds}."""
    B, T, K = settings.batch_size, settings.context, config.head_dim
    heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
    q, k, v = (torch.randn(B, n, T, K, device=device, dtype=dtype, requires_grad=True) for n in heads)
    documents = mask = None
    if settings.document_mask or settings.from_examples:
        documents = (torch.arange(T, device=device) // (T // 3 + 1)).int().expand(B, T).contiguous()  # three a row
        _, mask = within_documents(documents)
    forms = {
        "sdpa": lambda: F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=config.group_size > 1
        ),
        "triton": lambda: flash_attention(q, k, v, causal=True, documents=documents),
    }

    def passes(form: Callable[[], torch.Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(form().sum(), (q, k, v))

    clock = clock or card_seconds
    return {name: least(passes(form), clock) for name, form in forms.items()}


def least(work: Callable[[], Any], clock: Clock) -> float:
    for _ in range(WARM_UPS):
        work()
    return min(clock(work) for _ in range(REPEATS))


def card_seconds(work: Callable[[], Any]) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3
