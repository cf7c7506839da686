"""How close the engine stays to a reference model: KL divergence and bits per byte of texts, by teacher forcing.

Not here: whether programs that compute the same agree (volumes.py). Tests: tests/verify/test_divergence.py.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nano_llama.core.divergence import kl, log_softmax
from nano_llama.core.loss import bits_per_byte
from nano_llama.vol3_engine.batch import Chunk, PackedBatch
from nano_llama.vol3_engine.blocks import blocks_for

if TYPE_CHECKING:
    from nano_llama.vol3_engine.llm import LLM

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
    blocks = list(range(blocks_for(len(ids))))
    return llm.engine.runner.execute(PackedBatch.pack([Chunk(list(ids), 0, len(ids), blocks, num_logits=len(ids))]))


def kl_divergence(reference: np.ndarray, found: np.ndarray) -> np.ndarray:
    """KL(reference || found) at each position, nats: logits (P,T,V), twice -> (P,T)."""
    result = np.empty(reference.shape[:2])
    for p in range(len(reference)):  # one text at a time: float64 logits of all would take gigabytes
        result[p] = kl(reference[p], found[p])
    return result


def continuation_bits_per_byte(logits: np.ndarray, targets: np.ndarray, num_bytes: int) -> float:
    """Bits per byte of texts: logits (P,T,V) and tokens (P,T) that stand for num_bytes bytes of UTF-8."""
    nats = -sum(
        float(np.take_along_axis(log_softmax(rows), ids[:, None], -1).sum())
        for rows, ids in zip(logits, targets, strict=True)
    )
    return bits_per_byte(nats / targets.size, targets.size, num_bytes)
