"""The scheduler: which rows the next step computes, within the memory for keys and values.

Continuous batching (Yu et al. 2022, Orca): texts join and leave at every step. A running text is given the tokens that
are known and not computed yet: one when it decodes, a piece of its prompt when it is new (chunked prefill, Agrawal et
al. 2023, arXiv 2308.16369), so that long prompts are read beside texts that decode, within a budget of tokens a step.

First come, first served. In `running` followed by `waiting` the texts always stand in the order of their arrival. Where
blocks are short the last that came is preempted: it gives its blocks back and computes its tokens anew later. So the
first of all is never disturbed, and since each fits into memory alone, each is the first some day: nobody starves.

Not here: tensors, choosing tokens (sampler.py), who asks (engine.py). Tests: tests/vol3/test_scheduler.py, and at
random over 10,000 steps tests/vol3/test_engine_random.py.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from nano_llama.core.errors import UserError
from nano_llama.vol3_engine.batch import Chunk, PackedBatch
from nano_llama.vol3_engine.blocks import BLOCK_SIZE, ROOT, BlockPool, blocks_for
from nano_llama.vol3_engine.sequence import Sequence, Status


@dataclass
class Step:
    """What one step computes, and what happened on the way to it."""

    sequences: list[Sequence] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # rows of each
    choosing: list[Sequence] = field(default_factory=list)  # those that will choose a token, in the order of the logits
    prefix_hits: dict[int, int] = field(default_factory=dict)  # sequence number -> tokens it found in others' blocks
    preempted: list[int] = field(default_factory=list)  # sequence numbers
    batch: PackedBatch = field(default_factory=lambda: PackedBatch.pack([]))


class Scheduler:
    """max_num_seqs texts run at once, a step computes max_num_batched_tokens rows, num_blocks blocks are there.

    separate_prefill: the runner computes prefill rows with other kernels than decode rows, so that a block which holds
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
        assert max_num_batched_tokens >= max_num_seqs, "every running text advances in every step"
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

    # -- coming and going -----------------------------------------------------------------------------------------

    def add(self, sequence: Sequence) -> None:
        """Queue a text. It must fit into memory alone: `length_limit` sees to that."""
        assert sequence.max_length <= self.cache_tokens + 1, "a text that can never fit is refused before"
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """A text has ended or was aborted: its blocks are free at once."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._let_go(sequence)

    def restart(self, sequences: Iterable[Sequence]) -> None:
        """A step was not computed to its end: trust no block, and let these texts, in this order, begin anew."""
        self.pool = BlockPool(self.pool.num_blocks)
        self.running.clear()
        self.waiting = deque(sequences)
        for sequence in self.waiting:
            sequence.block_table.clear()
            self._let_go(sequence)

    def _let_go(self, sequence: Sequence) -> None:
        self.pool.release(sequence.block_table)
        sequence.block_table.clear()
        sequence.num_computed, sequence.chapter, sequence.num_chapters = 0, ROOT, 0
        if not sequence.finished:
            sequence.status = Status.WAITING

    # -- the next step --------------------------------------------------------------------------------------------

    def plan(self) -> Step:
        """Form the next step. What it plans counts as computed, so it must be executed, or else `restart` be called."""
        step = Step()
        budget = self._continue_running(step, self.max_num_batched_tokens)
        if not step.preempted:  # who gave blocks up must not lose them to one who came later
            self._admit_waiting(step, budget)
        step.batch = PackedBatch.pack(map(_chunk, step.sequences, step.counts))
        return step

    def _continue_running(self, step: Step, budget: int) -> int:
        """Every running text advances by one token at least -> what is left of the budget."""
        place = 0
        while place < len(self.running):
            sequence = self.running[place]
            self._share_prefix(step, sequence)
            behind = len(self.running) - place - 1
            count = _piece(sequence, budget - behind)
            while not self._fits(sequence, count):
                self._preempt_last(step)
                if place == len(self.running):  # it was the last itself
                    return budget
            self._compute(step, sequence, count)
            budget -= count
            place += 1
        return budget

    def _admit_waiting(self, step: Step, budget: int) -> None:
        """Texts join while there is budget, and memory for all that is known of them and of those that run."""
        promised = sum(_blocks_to_come(sequence) for sequence in self.running)
        while self.waiting and len(self.running) < self.max_num_seqs and budget > 0:
            sequence = self.waiting[0]
            self._share_prefix(step, sequence)
            needed = _blocks_to_come(sequence)
            if promised + needed > self.pool.num_free:
                step.prefix_hits.pop(sequence.number, None)
                self._let_go(sequence)
                return
            self.running.append(self.waiting.popleft())
            sequence.status = Status.RUNNING
            count = _piece(sequence, budget)
            self._compute(step, sequence, count)
            promised += _blocks_to_come(sequence)
            budget -= count

    def _share_prefix(self, step: Step, sequence: Sequence) -> None:
        """Skip what others have computed, or compute in this very step: a layer's keys are written before it attends.

        The last token is always left, for somebody must compute the logits that follow it.
        """
        while self.prefix_caching and len(sequence.block_table) * BLOCK_SIZE == sequence.num_computed:
            start, end = sequence.num_computed, sequence.num_computed + BLOCK_SIZE
            block = self.pool.find(sequence.chapter, self._content(sequence, start)) if end < len(sequence) else None
            if block is None:
                return
            self.pool.share(block)
            sequence.block_table.append(block)
            sequence.chapter = self.pool.chapters[block]
            sequence.num_chapters += 1
            sequence.num_computed = end
            step.prefix_hits[sequence.number] = step.prefix_hits.get(sequence.number, 0) + BLOCK_SIZE

    def _content(self, sequence: Sequence, start: int) -> tuple[int, ...]:
        """What the block from token `start` on is remembered under: its tokens, and if it matters who brought them."""
        tokens = sequence.tokens(start, start + BLOCK_SIZE)
        decode_rows = min(BLOCK_SIZE, start + BLOCK_SIZE - len(sequence.prompt_ids))
        return (*tokens, decode_rows) if self.separate_prefill and decode_rows > 0 else tuple(tokens)

    def _fits(self, sequence: Sequence, count: int) -> bool:
        return blocks_for(sequence.num_computed + count) - len(sequence.block_table) <= self.pool.num_free

    def _preempt_last(self, step: Step) -> None:
        victim = self.running.pop()
        step.prefix_hits.pop(victim.number, None)
        step.preempted.append(victim.number)
        self._let_go(victim)
        self.waiting.appendleft(victim)

    def _compute(self, step: Step, sequence: Sequence, count: int) -> None:
        """Put the text's next `count` tokens into the step, and their places into its blocks."""
        assert count > 0, "a text without a token to compute has chosen none after its last step"
        step.sequences.append(sequence)
        step.counts.append(count)
        sequence.num_computed += count
        while len(sequence.block_table) < blocks_for(sequence.num_computed):
            sequence.block_table.append(self.pool.take())
        while self.prefix_caching and (sequence.num_chapters + 1) * BLOCK_SIZE <= sequence.num_computed:
            number = sequence.num_chapters
            content = self._content(sequence, number * BLOCK_SIZE)
            sequence.chapter = self.pool.remember(sequence.block_table[number], sequence.chapter, content)
            sequence.num_chapters += 1
        if sequence.num_computed == len(sequence):
            step.choosing.append(sequence)


def _piece(sequence: Sequence, budget: int) -> int:
    """How many tokens to compute now. A piece of a prompt ends where a block ends, so that others can find it."""
    left = len(sequence) - sequence.num_computed
    if left <= budget:
        return left
    aligned = (sequence.num_computed + budget) // BLOCK_SIZE * BLOCK_SIZE - sequence.num_computed
    return aligned if aligned > 0 else budget


def _blocks_to_come(sequence: Sequence) -> int:
    """Blocks that the known tokens will still take."""
    return blocks_for(len(sequence)) - len(sequence.block_table)


def _chunk(sequence: Sequence, count: int) -> Chunk:
    end = sequence.num_computed
    return Chunk(
        token_ids=sequence.tokens(end - count, end),
        position=end - count,
        prompt_length=len(sequence.prompt_ids),
        block_table=sequence.block_table,
        sampled=end == len(sequence),
    )


def length_limit(prompt_length: int, max_tokens: int | None, context: int, cache_tokens: int) -> int:
    """Tokens that a text may come to, prompt included. Raises UserError where it can never be run.

    max_tokens None means: as far as context and memory reach.
    """
    if prompt_length >= context:
        raise UserError(
            f"The prompt has {prompt_length} tokens; the model's context, max_position_embeddings, is {context}.",
            hint=f"Shorten the prompt to at most {context - 1} tokens, so that one can follow.",
        )
    wanted = context if max_tokens is None else min(context, prompt_length + max_tokens)
    most = cache_tokens + 1  # the last token's keys and values are never needed
    if max_tokens is None and prompt_length < most:
        return min(wanted, most)
    if wanted > most:
        raise UserError(
            f"A prompt of {prompt_length} tokens with {wanted - prompt_length} new ones needs a cache of "
            f"{wanted - 1} tokens; kv_cache_memory holds {cache_tokens}.",
            hint="Raise kv_cache_memory, or lower max_tokens.",
        )
    return wanted
