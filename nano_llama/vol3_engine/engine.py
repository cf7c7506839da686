"""The engine: steps. Each plans which rows to compute, runs them, chooses tokens, and lets finished texts go.

Texts come with `add`, go with `abort`, and their news (a token, its text, an error) lie in the mailbox they came with
until somebody reads it. Who reads drives: `run` steps while its own mailbox is empty, so several may be open at once,
also in several threads: a lock lets one of them in at a time.
Not here: what a step computes (scheduler.py), tensors (runner/), loading and the public face (llm.py), threads
(async_engine.py). Tests: tests/vol3/test_engine.py, test_engine_random.py, with a runner that is a small table.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.sampling import token_logprobs
from nano_llama.vol3_engine.blocks import BLOCK_SIZE, blocks_for
from nano_llama.vol3_engine.runner import Runner
from nano_llama.vol3_engine.sampler import Sampler
from nano_llama.vol3_engine.scheduler import Scheduler, Step
from nano_llama.vol3_engine.sequence import Sequence
from nano_llama.vol3_engine.settings import EngineSettings
from nano_llama.vol3_engine.trace import NoTrace, Trace


class News(NamedTuple):
    """One token of one text: the text that is new and certain; whether it is the last; the error that ended it."""

    sequence: Sequence
    token: int
    text: str
    last: bool
    error: NanoLlamaError | None = None


Mailbox = deque[News]


class Engine:
    """Runs texts over one runner, whose memory for keys and values is planned here, once.

    Raises UserError where kv_cache_memory holds not even one block, EnvironmentFault where the machine has not so much.
    """

    def __init__(self, runner: Runner, settings: EngineSettings, trace: Trace | None = None):
        self.runner = runner
        num_blocks = plan_blocks(runner, settings)
        runner.allocate(num_blocks, BLOCK_SIZE)
        self.scheduler = Scheduler(
            settings.max_num_seqs, max(settings.max_num_batched_tokens, settings.max_num_seqs), num_blocks,
            prefix_caching=settings.prefix_caching, separate_prefill=runner.separate_prefill,
        )  # fmt: skip
        self.sampler = Sampler(runner.config.vocab_size)
        self.trace = trace or NoTrace()
        self.trace.began(self.scheduler)
        self._mailboxes: dict[Sequence, Mailbox] = {}  # of every text that has not ended, in the order of arrival
        self._arrived = 0
        self._lock = threading.RLock()

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add(self, sequence: Sequence, mailbox: Mailbox) -> None:
        """Queue a text."""
        with self._lock:
            sequence.number = self._arrived
            self._arrived += 1
            self._mailboxes[sequence] = mailbox
            self.scheduler.add(sequence)
            self.trace.arrived(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Nobody wants the rest: its memory is free at once. A text that has ended is left as it is."""
        with self._lock:
            if self._mailboxes.pop(sequence, None) is not None:
                sequence.abort()
                self.scheduler.remove(sequence)
                self.trace.ended(sequence)

    def step(self) -> None:
        """Compute one step and deliver its news. Whatever fails half-way, every text can go on with the next step."""
        with self._lock:
            try:
                step = self.scheduler.plan()
                logits = self.runner.execute(step.batch)
                self._take_tokens(step, logits)
            except BaseException:  # plan, blocks and tokens may be half done: begin anew what has not ended
                self.scheduler.restart(sequence for sequence in self._mailboxes if not sequence.finished)
                raise
            self.trace.stepped(step, self.scheduler)

    def run(self, sequences: Iterable[Sequence]) -> Iterator[News]:
        """News after every token of every sequence. Whoever stops asking stops the work. Raises a text's error."""
        mine, mailbox = list(sequences), Mailbox()
        for sequence in mine:
            self.add(sequence, mailbox)
        left = len(mine)
        try:
            while left:
                with self._lock:  # another thread's step may bring this one's news
                    while not mailbox:
                        if not any(sequence in self._mailboxes for sequence in mine):
                            return  # somebody closed the engine
                        self.step()
                news = mailbox.popleft()
                if news.error:
                    raise news.error
                left -= news.last
                yield news
        finally:
            for sequence in mine:
                self.abort(sequence)

    def abort_all(self) -> None:
        """Nobody wants anything any more."""
        for sequence in list(self._mailboxes):
            self.abort(sequence)

    def close(self) -> None:
        """Let the runner's threads and memory go."""
        self.abort_all()
        self.trace.close()
        self.runner.close()

    # -- tokens ---------------------------------------------------------------------------------------------------

    def _take_tokens(self, step: Step, logits: np.ndarray) -> None:
        """From logits (R,V) to a token for each text that chooses one."""
        for sequence, row, (token, error) in zip(step.choosing, logits, self._choose(logits, step), strict=True):
            if error is None and sequence.params.logprobs is not None:
                sequence.logprobs.append(token_logprobs(row, token, sequence.params.logprobs))
            self._deliver(sequence, token, error)

    def _choose(self, logits: np.ndarray, step: Step) -> list[tuple[int, NanoLlamaError | None]]:
        """(token, None) for each row, or (-1, error) for a row whose logits are broken; the others do not suffer."""
        try:
            return [(token, None) for token in self.sampler.choose(logits, step.choosing)]
        except NanoLlamaError:
            return [self._choose_alone(row, sequence) for row, sequence in zip(logits, step.choosing, strict=True)]

    def _choose_alone(self, row: np.ndarray, sequence: Sequence) -> tuple[int, NanoLlamaError | None]:
        try:
            return self.sampler.choose(row[None], [sequence])[0], None
        except NanoLlamaError as error:
            return -1, error

    def _deliver(self, sequence: Sequence, token: int, error: NanoLlamaError | None) -> None:
        mailbox = self._mailboxes[sequence]
        if error:
            self.abort(sequence)
            mailbox.append(News(sequence, token, "", True, error))
            return
        text = sequence.append(token)
        if sequence.finished:
            self.scheduler.remove(sequence)
            del self._mailboxes[sequence]
            self.trace.ended(sequence)
        mailbox.append(News(sequence, token, text, sequence.finished))


def plan_blocks(runner: Runner, settings: EngineSettings) -> int:
    """Blocks that kv_cache_memory holds, but not more than max_num_seqs texts of the whole context could fill."""
    affordable = settings.kv_cache_bytes // (runner.kv_bytes_per_token * BLOCK_SIZE)
    if affordable < 1:
        needed = runner.kv_bytes_per_token * BLOCK_SIZE
        raise UserError(
            f"kv_cache_memory={settings.kv_cache_memory!r} is too little: {BLOCK_SIZE} tokens take {needed:,} bytes.",
            hint="Raise it, say to 1GiB.",
        )
    return min(affordable, settings.max_num_seqs * blocks_for(runner.config.max_position_embeddings))
