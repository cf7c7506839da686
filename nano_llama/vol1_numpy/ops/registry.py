"""The ops that a model runs, as a table: PLAIN, every op as it is derived, or FAST, the same numbers sooner.

The model calls its ops through such a table, so that a reader can run it in the plain form, a study can replace one op
(dataclasses.replace), and a trace can record what goes through. The ops themselves have a file each.
Tests: tests/vol1/test_ops_fast.py compares the two tables.
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


class OpPair(NamedTuple):
    """forward(...) -> (y, cache) and backward(dy, cache) -> gradients."""

    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Ops:
    """One pair per op of a LLaMA."""

    embedding: OpPair
    linear: OpPair
    rmsnorm: OpPair
    rope: OpPair
    attention: OpPair
    swiglu: OpPair
    cross_entropy: OpPair


PLAIN = Ops(
    embedding=OpPair(embedding.embedding_forward, embedding.embedding_backward),
    linear=OpPair(linear.linear_forward, linear.linear_backward),
    rmsnorm=OpPair(rmsnorm.rmsnorm_forward, rmsnorm.rmsnorm_backward),
    rope=OpPair(rope.rope_forward, rope.rope_backward),
    attention=OpPair(attention.attention_forward, attention.attention_backward),
    swiglu=OpPair(swiglu.swiglu_forward, swiglu.swiglu_backward),
    cross_entropy=OpPair(cross_entropy.cross_entropy_forward, cross_entropy.cross_entropy_backward),
)

FAST = replace(
    PLAIN,
    embedding=OpPair(embedding.embedding_forward, embedding.embedding_backward_fast),
    rmsnorm=OpPair(rmsnorm.rmsnorm_forward_fast, rmsnorm.rmsnorm_backward_fast),
    rope=OpPair(rope.rope_forward_fast, rope.rope_backward_fast),
    attention=OpPair(tiled_attention.tiled_attention_forward, tiled_attention.tiled_attention_backward),
    swiglu=OpPair(swiglu.swiglu_forward_fast, swiglu.swiglu_backward_fast),
    cross_entropy=OpPair(cross_entropy.cross_entropy_forward_fast, cross_entropy.cross_entropy_backward_fast),
)
