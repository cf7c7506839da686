"""The loss that Volume 2 trains on: cross-entropy summed over the counted targets.

Not here: whole splits (evaluate.py), a step (trainer.py). Tests: tests/vol2/test_loss.py.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from nano_llama.core.data.batches import IGNORED
from nano_llama.vol2_torch.model import Llama

HeadLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Nats summed over the counted targets, in float32.  hidden (B,T,D), the head's (V,D), targets (B,T) -> ()"""
    logits = F.linear(hidden, weight)  # (B,T,V)
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def loss_sum(model: Llama, tokens: Tensor, targets: Tensor, head_loss: HeadLoss = head_loss) -> Tensor:
    """Nats summed over the counted targets, differentiable.  tokens, targets: (B,T) -> ()

    A sum and not a mean, so that batches with different counts add up to the loss over all of them. head_loss: the
    function above, or a faster form of it.
    """
    return head_loss(model.hidden_states(tokens), model.head_weight, targets)
