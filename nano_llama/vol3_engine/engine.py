"""The loop: form a batch, read its prompts, then choose a token for each text until all have ended.

Not here: tensors (runner/), what a text's end is (sequence.py), loading and the public face (llm.py).
Tests: tests/vol3/test_engine.py, with a runner that is a small table.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from nano_llama.core.sampling import sample, token_logprobs
from nano_llama.vol3_engine.scheduler import StaticScheduler, cache_length
from nano_llama.vol3_engine.sequence import Sequence, Status


class Engine:
    """Runs sequences to their ends. It keeps nothing between calls, so several runs may be open at once."""

    def __init__(self, runner: Any, max_num_seqs: int, kv_cache_bytes: int):
        self.runner = runner
        self.scheduler = StaticScheduler(max_num_seqs, cache_tokens=kv_cache_bytes // runner.kv_bytes_per_token)

    def run(self, sequences: Iterable[Sequence]) -> Iterator[tuple[Sequence, str]]:
        """Yield (sequence, new text) after every token of every sequence. Whoever stops asking stops the work."""
        for batch in self.scheduler.batches(sequences):
            yield from self._run_batch(batch)

    def _run_batch(self, live: list[Sequence]) -> Iterator[tuple[Sequence, str]]:
        batch = self.runner.batch([s.prompt_ids for s in live], cache_length(live))
        for sequence in live:
            sequence.status = Status.RUNNING
        logits = batch.prefill()  # (B,V)
        while True:
            for sequence, row in zip(live, logits, strict=True):
                yield sequence, take_token(sequence, row)
            rows = [row for row, sequence in enumerate(live) if not sequence.finished]
            if not rows:
                return
            if len(rows) < len(live):
                batch.keep(rows)
                live = [live[row] for row in rows]
            logits = batch.decode([s.output_ids[-1] for s in live])


def take_token(sequence: Sequence, logits: np.ndarray) -> str:
    """Choose the sequence's next token from its logits (V,), append it, and return the text that is new."""
    params = sequence.params
    token = sample(logits, params, sequence.prompt_ids, sequence.output_ids, seed=sequence.seed)
    if params.logprobs is not None:
        sequence.logprobs.append(token_logprobs(logits, token, params.logprobs))
    return sequence.append(token)
