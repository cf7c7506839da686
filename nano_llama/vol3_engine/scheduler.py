"""Which sequences run together: batches that stay within max_num_seqs and the memory for keys and values.

The batches are static: a batch is formed, runs until all its texts have ended, and the next is formed. Not here:
joining a running batch, sharing of memory in blocks, preemption (the paged engine's), and tensors.
Tests: tests/vol3/test_scheduler.py.
"""

from collections.abc import Iterable, Iterator

from nano_llama.core.errors import UserError
from nano_llama.vol3_engine.sequence import Sequence


class StaticScheduler:
    """Forms batches of at most max_num_seqs sequences whose padded cache has at most `cache_tokens` places."""

    def __init__(self, max_num_seqs: int, cache_tokens: int):
        self.max_num_seqs = max_num_seqs
        self.cache_tokens = cache_tokens

    def length_limit(self, prompt_length: int, max_tokens: int | None, context: int) -> int:
        """Tokens that a request may come to, prompt included. Raises UserError where it can never be run.

        max_tokens None means: as far as context and memory reach.
        """
        if prompt_length >= context:
            raise UserError(
                f"The prompt has {prompt_length} tokens; the model's context, max_position_embeddings, is {context}.",
                hint=f"Shorten the prompt to at most {context - 1} tokens, so that one can follow.",
            )
        wanted = context if max_tokens is None else min(context, prompt_length + max_tokens)
        most = self.cache_tokens + 1  # the last token's keys and values are never needed
        if max_tokens is None and prompt_length < most:
            return min(wanted, most)
        if wanted > most:
            raise UserError(
                f"A prompt of {prompt_length} tokens with {wanted - prompt_length} new ones needs a cache of "
                f"{wanted - 1} tokens; kv_cache_memory holds {self.cache_tokens}.",
                hint="Raise kv_cache_memory, or lower max_tokens.",
            )
        return wanted

    def batches(self, sequences: Iterable[Sequence]) -> Iterator[list[Sequence]]:
        """All sequences, each in one batch. Those of similar prompt length go together, so that little is padded."""
        batch: list[Sequence] = []
        for sequence in sorted(
            sequences, key=lambda s: len(s.prompt_ids)
        ):  # stable: equals stay first come first served
            if batch and not self._fits([*batch, sequence]):
                yield batch
                batch = []
            batch.append(sequence)
        if batch:
            yield batch

    def _fits(self, batch: list[Sequence]) -> bool:
        return len(batch) <= self.max_num_seqs and len(batch) * cache_length(batch) <= self.cache_tokens


def cache_length(batch: list[Sequence]) -> int:
    """Columns of the cache of a batch: prompts end in the same column, and the new tokens follow.

    .  .  p  p | n  n  n          p prompt, n new, . padding
    p  p  p  p | n  n  n
    """
    return max(len(s.prompt_ids) for s in batch) + max(s.max_new_tokens for s in batch) - 1
