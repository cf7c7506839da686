"""Which form of each op a model runs: PLAIN, every op as it is derived, or FAST, the same numbers sooner.

Not here: the forms themselves (a file for each op). Tests: tests/vol1/test_ops_fast.py compares the two tables.

The model calls its ops through such a table, so that a reader can run it plainly, a study can put a changed op in one
place (dataclasses.replace), and a trace can listen in between.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from nano_llama.vol1_numpy.ops import (
    attention,
    cross_entropy,
    embedding,
    linear,
    rmsnorm,
    rope,
    swiglu,
    tiled_attention,
)


class Pair(NamedTuple):
    """forward(...) -> (y, cache) and backward(dy, cache) -> gradients."""

    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Ops:
    """One pair for each op of a LLaMA."""

    embedding: Pair
    linear: Pair
    rmsnorm: Pair
    rope: Pair
    attention: Pair
    swiglu: Pair
    cross_entropy: Pair


PLAIN = Ops(
    embedding=Pair(embedding.embedding_forward, embedding.embedding_backward),
    linear=Pair(linear.linear_forward, linear.linear_backward),
    rmsnorm=Pair(rmsnorm.rmsnorm_forward, rmsnorm.rmsnorm_backward),
    rope=Pair(rope.rope_forward, rope.rope_backward),
    attention=Pair(attention.attention_forward, attention.attention_backward),
    swiglu=Pair(swiglu.swiglu_forward, swiglu.swiglu_backward),
    cross_entropy=Pair(cross_entropy.cross_entropy_forward, cross_entropy.cross_entropy_backward),
)

FAST = replace(
    PLAIN,
    embedding=Pair(embedding.embedding_forward, embedding.embedding_backward_fast),
    rmsnorm=Pair(rmsnorm.rmsnorm_forward_fast, rmsnorm.rmsnorm_backward_fast),
    rope=Pair(rope.rope_forward_fast, rope.rope_backward_fast),
    attention=Pair(tiled_attention.tiled_attention_forward, tiled_attention.tiled_attention_backward),
    swiglu=Pair(swiglu.swiglu_forward_fast, swiglu.swiglu_backward_fast),
    cross_entropy=Pair(cross_entropy.cross_entropy_forward_fast, cross_entropy.cross_entropy_backward_fast),
)
