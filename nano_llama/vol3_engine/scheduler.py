"""The scheduler: which tokens of which sequences the next step computes, within the memory of the KV cache.

Continuous batching (Yu et al. 2022, Orca): sequences join and leave at every step. A running sequence computes the
tokens that are known but not computed yet: one when it decodes, a chunk of its prompt when it is new. Chunked prefill
(Agrawal et al. 2023, arXiv 2308.16369) lets long prompts run beside sequences that decode, within a budget of tokens
per step.

First come, first served: `running` followed by `waiting` is always in order of arrival. When blocks run short, the
last arrival is preempted: it frees its blocks and computes its tokens again later. So the oldest sequence is never
preempted, and since each sequence fits into memory alone, every one becomes the oldest eventually: none starves.

The rows of a prompt whose prompt_logprobs are wanted yield logits, which take memory: at most MAX_PROMPT_LOGITS rows in
a step, and of n samples of one prompt only one at a time computes them; where none are left, a sequence pauses. Such a
row is not skipped where cached blocks hold its token, until its logits have been seen.

Not here: sampling (sampler.py), the loop (engine.py). Tests: tests/vol3/test_scheduler.py, and over 10,000 random
steps tests/vol3/test_engine_random.py.
"""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from sys import maxsize

from nano_llama.core.errors import ContextLengthError
from nano_llama.core.units import plural
from nano_llama.vol3_engine.batch import Chunk, PackedBatch
from nano_llama.vol3_engine.blocks import BLOCK_SIZE, BlockPool, Contents, blocks_for
from nano_llama.vol3_engine.images import digests_between, embeddings_between
from nano_llama.vol3_engine.sequence import PromptLogprobs, Sequence, Status

MAX_PROMPT_LOGITS = 64  # rows per step, of all prompts together: 12.6 MB with a vocabulary of 49,152, 33.6 with 131,072


@dataclass
class ScheduledStep:
    """What one step computes, and what was decided on the way."""

    sequences: list[Sequence] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # tokens to compute, per sequence
    num_logits: list[int] = field(default_factory=list)  # the last so many rows' logits are needed, per sequence
    sampling: list[Sequence] = field(default_factory=list)  # those that sample a token, each from its last logits
    prompt_logits: dict[PromptLogprobs, int] = field(default_factory=dict)  # how many rows' are for these
    prefix_hits: dict[int, int] = field(default_factory=dict)  # sequence number -> tokens found in cached blocks
    preempted: list[int] = field(default_factory=list)  # sequence numbers
    batch: PackedBatch = field(default_factory=lambda: PackedBatch.pack([]))
    began: float = field(default_factory=time.perf_counter)


class Scheduler:
    """Runs at most max_num_seqs sequences at once, max_num_batched_tokens tokens per step, in num_blocks blocks.

    separate_prefill: the runner computes prefill rows with other kernels than decode rows, so a block that holds
    decode rows may not stand in for one that a prompt fills.
    """

    def __init__(
        self,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        num_blocks: int,
        prefix_caching: bool = True,
        separate_prefill: bool = False,
    ):
        assert max_num_batched_tokens >= max_num_seqs, "every running sequence advances in every step"
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.prefix_caching = prefix_caching
        self.separate_prefill = separate_prefill
        self.pool = BlockPool(num_blocks)
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()

    @property
    def cache_tokens(self) -> int:
        return self.pool.num_blocks * BLOCK_SIZE

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    # -- adding and removing --------------------------------------------------------------------------------------

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. It must fit into memory alone: `length_limit` ensures that."""
        assert sequence.max_length <= self.cache_tokens + 1, "a sequence that can never fit is refused earlier"
        sequence.prefix_id = self.pool.root(sequence.cache_salt, sequence.adapter)
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Free the blocks of a sequence that has finished or was aborted."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._reset(sequence)

    def restart(self, sequences: Iterable[Sequence]) -> None:
        """After a step that failed midway: discard all blocks, and queue these sequences, in this order, again."""
        self.pool = BlockPool(self.pool.num_blocks)
        self.running.clear()
        self.waiting = deque(sequences)
        for sequence in self.waiting:
            sequence.block_table.clear()
            self._reset(sequence)

    def _reset(self, sequence: Sequence) -> None:
        """Free its blocks: nothing of it is computed any more."""
        self.pool.free(sequence.block_table)
        sequence.block_table.clear()
        sequence.num_computed, sequence.num_hashed_blocks = 0, 0
        sequence.prefix_id = self.pool.root(sequence.cache_salt, sequence.adapter)
        if not sequence.finished:
            sequence.status = Status.WAITING

    # -- the next step --------------------------------------------------------------------------------------------

    def schedule(self) -> ScheduledStep:
        """Form the next step. Its tokens count as computed, so it must be executed, or else `restart` be called."""
        step = ScheduledStep()
        budget = self._schedule_running(step, self.max_num_batched_tokens)
        if not step.preempted:  # the blocks of a preempted sequence must not go to one that arrived later
            self._admit_waiting(step, budget)
        step.batch = PackedBatch.pack(map(_chunk, step.sequences, step.counts, step.num_logits))
        return step

    def _schedule_running(self, step: ScheduledStep, budget: int) -> int:
        """Every running sequence that does not pause advances by at least one token -> the rest of the budget."""
        index = 0
        while index < len(self.running):
            sequence = self.running[index]
            self._acquire_cached_prefix(step, sequence)
            num_later = len(self.running) - index - 1  # each keeps one token of the budget
            count = chunk_size(sequence, min(budget - num_later, _row_limit(step, sequence)))
            while not self._fits(sequence, count):
                self._preempt_last(step)
                if index == len(self.running):  # it preempted itself
                    return budget
            self._add_to_step(step, sequence, count)
            budget -= count
            index += 1
        return budget

    def _admit_waiting(self, step: ScheduledStep, budget: int) -> None:
        """Start waiting sequences while there is budget, and blocks for all known tokens, theirs and the running."""
        reserved = sum(_missing_blocks(sequence) for sequence in self.running)
        while self.waiting and len(self.running) < self.max_num_seqs and budget > 0:
            sequence = self.waiting[0]
            self._acquire_cached_prefix(step, sequence)
            if reserved + _missing_blocks(sequence) > self.pool.num_free:
                step.prefix_hits.pop(sequence.number, None)
                self._reset(sequence)
                return
            self.running.append(self.waiting.popleft())
            sequence.status = Status.RUNNING
            count = chunk_size(sequence, min(budget, _row_limit(step, sequence)))
            self._add_to_step(step, sequence, count)
            reserved += _missing_blocks(sequence)
            budget -= count

    def _acquire_cached_prefix(self, step: ScheduledStep, sequence: Sequence) -> None:
        """Skip tokens that cached blocks hold, or that an earlier sequence of this very step computes.

        The latter works because in each layer all rows write their keys and values before any row attends. The last
        token is never skipped: its row yields the logits of the next one.
        """
        while self.prefix_caching and len(sequence.block_table) * BLOCK_SIZE == sequence.num_computed:
            start, end = sequence.num_computed, sequence.num_computed + BLOCK_SIZE
            if end >= len(sequence) or end > sequence.num_settled:
                return
            block = self.pool.lookup(sequence.prefix_id, self._block_contents(sequence, start))
            if block is None:
                return
            self.pool.acquire(block)
            sequence.block_table.append(block)
            sequence.prefix_id = self.pool.prefix_ids[block]
            sequence.num_hashed_blocks += 1
            sequence.num_computed = end
            step.prefix_hits[sequence.number] = step.prefix_hits.get(sequence.number, 0) + BLOCK_SIZE

    def _block_contents(self, sequence: Sequence, start: int) -> Contents:
        """The tokens of the block that begins at token `start`, its images' digests, and where it matters, how many
        are decode rows.
        """
        end = start + BLOCK_SIZE
        decode_rows = min(BLOCK_SIZE, end - len(sequence.prompt_ids))
        counted = (decode_rows,) if self.separate_prefill and decode_rows > 0 else ()
        return (*sequence.tokens(start, end), *digests_between(sequence.images, start, end), *counted)

    def _fits(self, sequence: Sequence, count: int) -> bool:
        return blocks_for(sequence.num_computed + count) - len(sequence.block_table) <= self.pool.num_free

    def _preempt_last(self, step: ScheduledStep) -> None:
        victim = self.running.pop()
        step.prefix_hits.pop(victim.number, None)
        step.preempted.append(victim.number)
        self._reset(victim)
        self.waiting.appendleft(victim)

    def _add_to_step(self, step: ScheduledStep, sequence: Sequence, count: int) -> None:
        """Compute the sequence's next `count` tokens in this step: allocate their blocks, register those now full."""
        assert count >= 0, "a row was skipped whose logits are wanted"
        if count == 0:
            return  # it pauses
        step.sequences.append(sequence)
        step.counts.append(count)
        sequence.num_computed += count
        self._need_logits(step, sequence)
        if sequence.num_cached_tokens is None:
            sequence.num_cached_tokens = step.prefix_hits.get(sequence.number, 0)
        while len(sequence.block_table) < blocks_for(sequence.num_computed):
            sequence.block_table.append(self.pool.allocate())
        while self.prefix_caching and (sequence.num_hashed_blocks + 1) * BLOCK_SIZE <= sequence.num_computed:
            index = sequence.num_hashed_blocks
            contents = self._block_contents(sequence, index * BLOCK_SIZE)
            sequence.prefix_id = self.pool.register(sequence.block_table[index], sequence.prefix_id, contents)
            sequence.num_hashed_blocks += 1

    def _need_logits(self, step: ScheduledStep, sequence: Sequence) -> None:
        """Note which of the sequence's rows need logits: the last of all its tokens, and those for prompt_logprobs."""
        end, record, num_rows = sequence.num_computed, sequence.prompt_logprobs, 0
        if record is not None and record.num_missing and end > len(record.entries):
            num_rows = min(end - len(record.entries), record.num_missing)
            step.prompt_logits[record] = num_rows
        if end == len(sequence):
            step.sampling.append(sequence)
            num_rows += 1
        step.num_logits.append(num_rows)


def _row_limit(step: ScheduledStep, sequence: Sequence) -> int:
    """How many tokens it may compute for the sake of prompt_logprobs: up to the last row whose logits it may have."""
    record = sequence.prompt_logprobs
    if record is None or not record.num_missing:
        return maxsize
    if record in step.prompt_logits:
        return 0  # another sample of the same prompt is at it, and leaves its blocks to this one
    left = MAX_PROMPT_LOGITS - sum(step.prompt_logits.values())
    return maxsize if record.num_missing <= left else len(record.entries) + left - sequence.num_computed


def chunk_size(sequence: Sequence, budget: int) -> int:
    """How many tokens to compute now. A chunk of a prompt ends on a block boundary, so that others can share it."""
    left = len(sequence) - sequence.num_computed
    if left <= budget:
        return left
    aligned = (sequence.num_computed + budget) // BLOCK_SIZE * BLOCK_SIZE - sequence.num_computed
    return aligned if aligned > 0 else budget


def _missing_blocks(sequence: Sequence) -> int:
    """Blocks that the known tokens still need."""
    return blocks_for(len(sequence)) - len(sequence.block_table)


def _chunk(sequence: Sequence, count: int, num_logits: int) -> Chunk:
    """The last `count` tokens that count as computed."""
    end = sequence.num_computed
    return Chunk(
        token_ids=sequence.tokens(end - count, end),
        position=end - count,
        prompt_length=len(sequence.prompt_ids),
        block_table=sequence.block_table,
        num_logits=num_logits,
        adapter=sequence.adapter,
        embeddings=embeddings_between(sequence.images, end - count, end) if sequence.images else (),
    )


def length_limit(prompt_length: int, max_tokens: int | None, context: int, cache_tokens: int) -> int:
    """The most tokens that a sequence may have, prompt included. Raises ContextLengthError if it can never run.

    max_tokens None means: as many as context and memory allow.
    """
    if prompt_length >= context:
        raise ContextLengthError(
            f"The prompt has {plural(prompt_length, 'token')}; the model's context, "
            f"max_position_embeddings, is {context}.",
            hint=f"Shorten the prompt to at most {plural(context - 1, 'token')}, so that one can follow.",
            prompt_tokens=prompt_length,
            max_tokens=max_tokens,
            context=context,
        )
    length = context if max_tokens is None else min(context, prompt_length + max_tokens)
    longest = cache_tokens + 1  # the keys and values of the last token are never needed
    if max_tokens is None and prompt_length < longest:
        return min(length, longest)
    if length > longest:
        raise ContextLengthError(
            f"A prompt of {prompt_length} tokens with {length - prompt_length} new ones needs a KV cache of "
            f"{length - 1} tokens; kv_cache_memory holds {cache_tokens}.",
            hint="Raise kv_cache_memory, or lower max_tokens.",
            prompt_tokens=prompt_length,
            max_tokens=max_tokens,
            context=longest,
        )
    return length
