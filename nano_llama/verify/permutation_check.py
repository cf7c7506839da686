"""Matrices that look wrong by themselves: q or k rows in an order that RoPE does not expect.

Not here: comparison with a reference (checkpoint.py). Tests: tests/verify/test_checkpoint.py.

RoPE pairs dimension i of a head with i + K/2 (Hugging Face's half layout) or 2i with 2i + 1 (Meta's, GGUF's). Training
gives the two rows of a pair, which turn together, similar norms, and neighbouring pairs, which turn at nearly the same
rate, too. So in a trained model in the half layout the log norms of rows (i, i + K/2) and of rows (2i, 2i + 1) both
correlate; in a matrix left in the other layout the first correlation is lost. That alone is not proof: a
matrix is reported if restoring its rows lowers the model's loss on plain English, or if it is the only one among many.
An untrained model shows no such order, and nothing is reported.
"""

from typing import TYPE_CHECKING

import numpy as np

from nano_llama.core.names import K_PROJ, Q_PROJ, layer_name
from nano_llama.core.rope import interleaved_to_half

if TYPE_CHECKING:
    import torch

    from nano_llama.vol2_torch import Llama

UNTRAINED = 0.9  # of ln V, the loss of a model that knows nothing: beyond it there is no order to find
GAP = 0.3  # between the two correlations: in SmolLM2 a permuted q shows 0.4 to 1.6, a correct one at most 0.25
LOSS_GAIN = 0.02  # nats per token: restoring a permuted matrix gains tenths, "restoring" a correct one loses


def pair_order(matrix: np.ndarray, head_dim: int) -> tuple[float, float]:
    """Correlation of log row norms over (i, i + K/2) and over (2i, 2i + 1).  matrix (n*K, D) -> two numbers."""
    norms = np.log(np.linalg.norm(matrix, axis=1) + 1e-12).reshape(-1, head_dim)  # (n, K)
    norms = norms - norms.mean(axis=1, keepdims=True)  # what distinguishes heads says nothing of the order within
    half = _correlation(norms[:, : head_dim // 2], norms[:, head_dim // 2 :])
    return half, _correlation(norms[:, 0::2], norms[:, 1::2])


def find_permuted(model: "Llama", tokens: "torch.Tensor") -> list[str]:
    """Sentences on q and k matrices whose rows seem out of order. tokens (1,T): a text that the model can predict."""
    import torch

    K, L = model.config.head_dim, model.config.num_hidden_layers
    params = model.named_params()
    order = {
        name: pair_order(params[name].detach().numpy(), K)
        for part in (Q_PROJ, K_PROJ)
        for name in (layer_name(i, part) for i in range(L))
    }
    usual = float(np.median([half for name, (half, _) in order.items() if name.endswith(Q_PROJ)]))
    found = []
    with torch.no_grad():
        baseline = _loss(model, tokens)
        if baseline > UNTRAINED * np.log(model.config.vocab_size):
            return []
        for name, (half, neighbours) in order.items():
            if neighbours - half > GAP:
                original = params[name].clone()
                params[name].copy_(interleaved_to_half(original, K))
                gain = baseline - _loss(model, tokens)
                params[name].copy_(original)
                if gain > LOSS_GAIN:
                    found.append(
                        f"q/k permutation: the rows of {name} are interleaved (Meta's and GGUF's layout of RoPE), not "
                        f"in halves; restoring them lowers the loss on plain English by {gain:.2f} nats per token."
                    )
            elif name.endswith(Q_PROJ) and usual > 0.4 and max(half, neighbours) < 0.05:
                found.append(
                    f"q/k permutation: the rows of {name} follow no order that RoPE expects (pair correlation "
                    f"{half:.2f}; {usual:.2f} is usual for the q matrices of this model)."
                )
    return found


def _loss(model: "Llama", tokens: "torch.Tensor") -> float:
    """Mean nats per token of predicting tokens (1,T)."""
    import torch.nn.functional as F

    return float(F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[0, 1:]))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel() - a.mean(), b.ravel() - b.mean()
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-12))
