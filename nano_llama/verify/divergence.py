"""How close the engine stays to a reference model: KL divergence and bits per byte of texts, by teacher forcing.

Not here: whether programs that compute the same agree (volumes.py), a table of quantization schemes (quantization.py).
Tests: tests/verify/test_divergence.py.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nano_llama.core.divergence import kl_of_log_probs, log_softmax
from nano_llama.core.loss import bits_per_byte
from nano_llama.vol3_engine.batch import Chunk, PackedBatch
from nano_llama.vol3_engine.blocks import blocks_for

if TYPE_CHECKING:
    from nano_llama.vol3_engine.llm import LLM
    from nano_llama.vol3_engine.runner import Runner

Ids = Sequence[int]


def next_token_logits(llm: "LLM", prompts: Sequence[Ids], continuations: Sequence[Ids]) -> np.ndarray:
    """Teacher-forced: logits (P,T,V), float32, that predict each token of P continuations of T tokens.

    In the engine's own steps: the prompts one by one, then the next token of all texts together. The blocks of the KV
    cache are used directly, so `llm` must serve nothing else, before or meanwhile.
    """
    runner, steps = llm.engine.runner, len(continuations[0])
    room = blocks_for(max(map(len, prompts)) + steps)  # blocks of one text
    tables = [list(range(p * room, (p + 1) * room)) for p in range(len(prompts))]
    found = np.empty((len(prompts), steps, llm.config.vocab_size), np.float32)
    for p, prompt in enumerate(prompts):
        found[p, 0] = runner.execute(PackedBatch.pack([Chunk(list(prompt), 0, len(prompt), tables[p])]))[0]
    for step in range(1, steps):
        decode = (
            Chunk([continuation[step - 1]], len(prompt) + step - 1, len(prompt), table)
            for prompt, continuation, table in zip(prompts, continuations, tables, strict=True)
        )
        found[:, step] = runner.execute(PackedBatch.pack(decode))
    return found


def prompt_logits(llm: "LLM", ids: Ids) -> np.ndarray:
    """Logits (T,V), float32, at every position of a prompt of T tokens, computed in one step.

    It writes into the first blocks of the KV cache, so `llm` should serve nothing else meanwhile.
    """
    return next(logits_in_parts(llm.engine.runner, ids, len(ids)))


def logits_in_parts(runner: "Runner", ids: Ids, rows: int) -> Iterator[np.ndarray]:
    """The same, (rows,V) at a time, from the first positions on; the last part may be shorter. A part is valid until
    the next is asked for, so a long text takes no more memory than a short one.
    """
    blocks = list(range(blocks_for(len(ids))))
    for start in range(0, len(ids), rows):
        part = list(ids[start : start + rows])
        yield runner.execute(PackedBatch.pack([Chunk(part, start, len(ids), blocks, num_logits=len(part))]))


class Estimate(NamedTuple):
    """A mean over tokens with its standard error, as if tokens were independent; NaN of a single one."""

    mean: float
    error: float


def estimate(values: np.ndarray) -> Estimate:
    """values: (N,)"""
    count = len(values)
    return Estimate(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else math.nan)


@dataclass(frozen=True)
class Divergence:
    """How far a model is from a reference model, at each of N tokens of a text."""

    kl: np.ndarray  # (N,) KL(reference || model) of the distributions in which the token was to be predicted, nats
    nats: np.ndarray  # (N,) -log p of the token under the model
    same: np.ndarray  # (N,) bool: whether the likeliest token is the reference's

    @classmethod
    def measure(cls, log_probs: np.ndarray, logits: np.ndarray, targets: np.ndarray) -> "Divergence":
        """log_probs: log_softmax of the reference's logits, (T,V) float64. logits: the model's, (T,V). targets: (T,)"""
        own = log_softmax(logits)  # (T,V)
        return cls(
            kl=kl_of_log_probs(log_probs, own),
            nats=-np.take_along_axis(own, targets[:, None], -1)[:, 0],
            same=log_probs.argmax(-1) == own.argmax(-1),
        )

    @classmethod
    def of_texts(cls, reference: np.ndarray, found: np.ndarray, targets: np.ndarray) -> "Divergence":
        """Of logits (P,T,V), twice, and tokens (P,T): one text at a time, since float64 of all would take gigabytes."""
        return cls.join(
            cls.measure(log_softmax(a), b, ids) for a, b, ids in zip(reference, found, targets, strict=True)
        )

    @classmethod
    def join(cls, parts: "Iterable[Divergence]") -> "Divergence":
        listed = list(parts)
        return cls(*(np.concatenate([getattr(part, name) for part in listed]) for name in ("kl", "nats", "same")))

    @property
    def mean_kl(self) -> Estimate:
        return estimate(self.kl)

    @property
    def loss(self) -> float:
        """Nats per token."""
        return float(self.nats.mean())

    @property
    def same_choice(self) -> float:
        """The share of tokens at which both find the same one likeliest."""
        return float(self.same.mean())

    def bits_per_byte(self, num_bytes: int) -> float:
        """num_bytes: of UTF-8, for which the tokens stand."""
        return bits_per_byte(self.loss, len(self.nats), num_bytes)
