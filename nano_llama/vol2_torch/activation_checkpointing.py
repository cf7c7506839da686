"""Activation checkpointing: a layer drops what it computed, and recomputes it in the backward pass.

    none         every layer keeps all that its backward pass reads
    selective    it keeps the results of matrix products and attention, and recomputes the cheap rest
    full         it keeps its input only: a third more work, but the memory of a layer no longer counts

Chen et al. 2016 (arXiv 1604.06174); selective: Korthikanti et al. 2022 (arXiv 2205.05198), section 5.
training/preflight.py knows how much memory each saves. Tests: tests/vol2/test_activation_checkpointing.py.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from nano_llama.vol2_torch.kernels.flash_attention import OPERATOR as flash_attention

aten = torch.ops.aten
EXPENSIVE = (
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
    flash_attention,
)


OURS = "nano_llama::flash_attention"  # by name: kernels/flash_attention.py need not be there


def checkpointed(kind: str, function: Callable[..., Tensor], *inputs: Any, draws: bool = True) -> Tensor:
    """function(*inputs), of whose results only those that `kind` names are kept for the backward pass.

    draws: whether it draws random numbers, which are drawn again; a CUDA graph cannot look at the generator for that.
    """
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": draws}
    if kind == "full":
        return checkpoint(function, *inputs, **options)
    contexts = partial(create_selective_checkpoint_contexts, _keep_expensive)
    return checkpoint(function, *inputs, **options, context_fn=contexts)


def _keep_expensive(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in EXPENSIVE or op.name() == OURS else CheckpointPolicy.PREFER_RECOMPUTE
