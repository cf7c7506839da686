"""How a model may differ from LLaMA: in the MLP's activation, in how far attention reaches, in where its norms stand.

    hidden_act      what the MLP's gate goes through: silu (LLaMA's), gelu_pytorch_tanh, relu or relu2, relu's square
    sliding_window  a position attends to so many, itself and those just before it; None (LLaMA's): to all before it
    norm_placement  around a sublayer f: pre (LLaMA's) x + f(norm(x)); post norm(x + f(x)), the first transformer's;
                    reordered x + norm(f(x)), OLMo 2's

Parameters, their names and their first values are the same in all of them, the last norm before the head included.
What computes or stores LLaMA's form alone says so: `require_llama`. Tests: tests/core/test_variants.py.
Sources: So et al. 2021, "Primer" (arXiv 2109.08668: relu2); Jiang et al. 2023, "Mistral 7B" (arXiv 2310.06825: the
window); Xiong et al. 2020 (arXiv 2002.04745: pre and post); OLMo et al. 2024, "2 OLMo 2 Furious" (arXiv 2501.00656).
"""

from collections.abc import Collection
from typing import Any

from nano_llama.core.errors import UserError

ACTIVATIONS = ("silu", "gelu_pytorch_tanh", "relu", "relu2")
NORM_PLACEMENTS = ("pre", "post", "reordered")
LLAMA: dict[str, Any] = {"hidden_act": "silu", "sliding_window": None, "norm_placement": "pre"}


def variants(source: Any, names: Collection[str] = tuple(LLAMA)) -> dict[str, Any]:
    """Of these fields of a LlamaConfig, or settings of a run (None: not given), those that LLaMA does not have."""
    values = {name: getattr(source, name) for name in names}
    return {name: value for name, value in values.items() if value is not None and value != LLAMA[name]}


def require_llama(source: Any, who: str, names: Collection[str] = tuple(LLAMA), *, hint: str = "") -> None:
    """Raise UserError for the first of these fields that is not LLaMA's. who: that computes or holds no other."""
    for name, value in variants(source, names).items():
        raise UserError(f"{name} = {value!r}: {who} has {name} = {LLAMA[name]!r} only.", hint=hint)
