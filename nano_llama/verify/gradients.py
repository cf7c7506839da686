"""Volume 1's hand-written gradients against Volume 2's autograd: one batch, every tensor, with the worst index.

Not here: finite differences, which need no second volume (vol1_numpy/gradcheck.py).
Tests: tests/parity/test_gradients_volumes.py.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError, import_extra
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.verify.checkpoint import Row, VerifyReport

# The two sides add in different orders. Rounding grows with depth and length; these leave a factor of about 100.
TOLERANCES = {"float64": 1e-10, "float32": 1e-4}
NOISE = 16  # units of rounding, of the model's largest gradient: what is left where a gradient is exactly zero


def verify_gradients(
    path: str | Path,
    *,
    batch_size: int = 2,
    context: int = 48,
    seed: int = 0,
    dtype: str = "float64",
    tolerance: float | None = None,
) -> VerifyReport:
    """Compare the gradients of a checkpoint's loss on a batch of random tokens drawn by `seed`.

    path: a Hugging Face folder, a .gguf or a hub name. batch_size, context: B and T of the batch, in tokens.
    dtype: "float64" or "float32"; memory is about 6 x the parameters in that type. tolerance: the largest relative
    error that passes, max|a-b| / max|b| per tensor; by default 1e-10 and 1e-4. One target in eight is ignored.
    Raises UserError for another dtype or an empty batch, EnvironmentFault where torch is missing.
    """
    from nano_llama.formats import open_model, resolve_model

    if batch_size < 1 or context < 1:
        raise UserError(f"A batch of {batch_size} x {context} tokens is empty.", hint="Both must be at least 1.")
    path = resolve_model(path)
    with open_model(path) as weights:
        config = weights.config
        context = min(context, config.max_position_embeddings)
        rng = np.random.default_rng(seed)
        tokens = rng.integers(0, config.vocab_size, (batch_size, context))  # (B,T)
        targets = rng.integers(0, config.vocab_size, (batch_size, context))  # (B,T)
        targets[rng.random(targets.shape) < 1 / 8] = IGNORE_INDEX
        report = compare_gradients(config, weights, tokens, targets, dtype=dtype, tolerance=tolerance)
    report.path = str(path)
    return report


def compare_gradients(
    config: LlamaConfig,
    params: Mapping[str, np.ndarray],
    tokens: np.ndarray,
    targets: np.ndarray,
    *,
    dtype: str = "float64",
    tolerance: float | None = None,
) -> VerifyReport:
    """As `verify_gradients`, on weights {name: array} and a given batch; tokens, targets: (B,T) integers."""
    torch = import_extra("torch", "train", "verify --gradients")
    from nano_llama.vol1_numpy import Llama as HandWritten
    from nano_llama.vol2_torch import Llama as Autograd

    if dtype not in TOLERANCES:
        raise UserError(f"Gradients are compared in float64 or float32, not in {dtype!r}.")
    tolerance = TOLERANCES[dtype] if tolerance is None else tolerance
    report = VerifyReport("the given weights", "autograd of Volume 2", tolerance)

    reference = Autograd(config).to(getattr(torch, dtype)).load_params(params)
    logits = reference(torch.from_numpy(tokens))  # (B,T,V)
    # the sum over counted targets by their number, so that a batch without any has loss 0 and not 0/0
    total = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.from_numpy(targets).flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )
    loss = total / max(int((targets != IGNORE_INDEX).sum()), 1)
    loss.backward()

    ours = HandWritten(config, {name: np.array(params[name], dtype) for name in reference.named_params()})
    our_loss, grads = ours.loss_and_grads(tokens, targets)
    report.rows.append(_row("loss", "loss", np.array(our_loss), loss.detach().numpy(), tolerance, 0.0))
    theirs = {}
    for name, parameter in reference.named_params().items():
        assert parameter.grad is not None, f"autograd left {name} without a gradient"
        theirs[name] = parameter.grad.numpy()
    noise = NOISE * float(np.finfo(dtype).eps) * max(float(np.abs(grad).max()) for grad in theirs.values())
    report.rows += [_row("gradient", name, grads[name], theirs[name], tolerance, noise) for name in theirs]
    return report


def _row(kind: str, name: str, a: np.ndarray, b: np.ndarray, tolerance: float, noise: float) -> Row:
    """`noise`: absolute differences up to it pass. With one token attention has no choice, so the gradients of q and k
    are zero, and what both sides have there is rounding."""
    if a.shape != b.shape:
        return Row(kind, name, a.shape, float("inf"), (), False)
    difference = np.abs(a.astype(np.float64) - b)
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(difference)), difference.shape))
    error = float(difference[worst] / max(float(np.abs(b).max()), 1e-12))
    return Row(kind, name, a.shape, error, worst, error <= tolerance or difference[worst] <= noise)  # a NaN fails
