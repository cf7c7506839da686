"""The engine: a loop of steps. Each schedules rows, runs them, samples tokens, and retires finished sequences.

Sequences come with `add` and go with `abort`; what happens to them is reported to their callback, one TokenEvent per
token. `run` turns that into an iterator: whichever thread waits for its events runs the steps, for all sequences, so
several iterators may be open at once, in several threads; a lock admits one at a time.
Not here: what a step computes (scheduler.py), tensors (runner/), asyncio (async_engine.py).
Tests: tests/vol3/test_engine.py, tests/vol3/test_engine_random.py.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.sampling import TokenLogprob
from nano_llama.vol3_engine.blocks import BLOCK_SIZE, blocks_for
from nano_llama.vol3_engine.runner import Runner
from nano_llama.vol3_engine.sampler import Sampler, listed_logprobs
from nano_llama.vol3_engine.scheduler import ScheduledStep, Scheduler
from nano_llama.vol3_engine.sequence import Sequence
from nano_llama.vol3_engine.settings import EngineSettings
from nano_llama.vol3_engine.step_size import SMALLEST, measured_step_size
from nano_llama.vol3_engine.trace import NoTrace, Trace


class TokenEvent(NamedTuple):
    """One token of one sequence: the text that is now certain; whether it is the last; the error that ended it.

    logprobs: of the tokens whose text is certain with this event, often none, at times several (text.py); None unless
    requested.
    """

    sequence: Sequence
    token: int
    text: str
    last: bool
    error: NanoLlamaError | None = None
    logprobs: list[list[TokenLogprob]] | None = None


OnEvent = Callable[[TokenEvent], None]


class Engine:
    """Runs sequences on one runner, whose KV cache it allocates once. never: ids that no sequence samples.

    Raises UserError if kv_cache_memory does not hold even one block, EnvironmentFault if the machine has less memory.
    """

    def __init__(
        self, runner: Runner, settings: EngineSettings, trace: Trace | None = None, never: Collection[int] = ()
    ):
        self.runner = runner
        num_blocks = plan_blocks(runner, settings)
        runner.allocate(num_blocks, BLOCK_SIZE)
        self.scheduler = Scheduler(
            settings.max_num_seqs, max(settings.max_num_batched_tokens, settings.max_num_seqs), num_blocks,
            prefix_caching=settings.prefix_caching, separate_prefill=runner.separate_prefill,
        )  # fmt: skip
        self.sampler = Sampler(runner.config.vocab_size, never)
        self._callbacks: dict[Sequence, OnEvent] = {}  # of every unfinished sequence, in order of arrival
        self._num_added = 0
        self._lock = threading.RLock()
        self._closed = False
        self._traces: tuple[NoTrace, ...] = ()
        if trace is not None:
            self.subscribe(trace)

    def __repr__(self) -> str:
        runner, tokens = type(self.runner).__name__, self.scheduler.cache_tokens
        return (
            "closed" if self._closed else f"{runner}, {self.scheduler.max_num_seqs} sequences, {tokens:,} tokens cached"
        )

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add(self, sequence: Sequence, on_event: OnEvent) -> None:
        """Queue a sequence. on_event is called during `step`, with the lock held: it should only pass the event on."""
        with self._lock:
            self.require_open()
            sequence.number = self._num_added
            self._num_added += 1
            self._callbacks[sequence] = on_event
            sequence.timing.arrived = sequence.timing.arrived or time.perf_counter()
            self.scheduler.add(sequence)
            for trace in self._traces:
                trace.arrived(sequence)

    def abort(self, sequence: Sequence) -> None:
        """Drop a sequence and free its memory at once. Does nothing for one that has finished."""
        with self._lock:
            if self._callbacks.pop(sequence, None) is not None:
                sequence.abort()
                self._retire(sequence)

    def step(self) -> None:
        """Run one step and report its events. If it fails midway, every sequence can go on with the next step."""
        with self._lock:
            began = time.perf_counter()
            if self._weights_changed(thorough=not self.scheduler.running):
                self.reset_prefix_cache()
            try:
                step = self.scheduler.schedule()
                for sequence in step.sequences:
                    sequence.timing.scheduled = sequence.timing.scheduled or began
                logits = self.runner.execute(step.batch)
                self._append_tokens(step, logits)
            except BaseException:  # schedule, blocks and tokens may be half done: start over with what is unfinished
                self.reset_prefix_cache()
                raise
            for trace in self._traces:
                trace.stepped(step, self.scheduler)

    def limit_step_time(self, seconds: float) -> int:
        """Measure how many tokens fit into a step of at most this long, and keep to it -> that number.

        Room for every sequence to decode beside a small piece of a prompt is kept in any case. Raises UserError while
        sequences run: their keys and values would be overwritten.
        """
        with self._lock:
            self.require_open()
            if self.has_work:
                raise UserError("The step's size cannot be measured while sequences run.", hint="Do it at the start.")
            self.reset_prefix_cache()
            tokens = measured_step_size(self.runner, self.scheduler.pool.num_blocks, seconds)
            self.scheduler.max_num_batched_tokens = max(tokens, self.scheduler.max_num_seqs + SMALLEST)
        return self.scheduler.max_num_batched_tokens

    def subscribe(self, trace: NoTrace) -> None:
        """Report everything to this trace from now on, in the thread that runs the steps: it must not wait."""
        with self._lock:
            trace.began(self.scheduler)
            self._traces = (*self._traces, trace)

    def unsubscribe(self, trace: NoTrace) -> None:
        with self._lock:
            self._traces = tuple(other for other in self._traces if other is not trace)

    def time_phases(self, wanted: Callable[[], bool]) -> None:
        """Between two steps, let the runner time the phases of a step, or no longer; does nothing where it cannot.

        wanted: asked once no step runs, so that of two calls at once the last word counts.
        """
        with self._lock:
            switch = getattr(self.runner, "time_phases", None)
            if switch is not None:
                switch(wanted())

    def reset_prefix_cache(self) -> None:
        """Discard all keys and values. Unfinished sequences compute theirs again and go on."""
        with self._lock:
            self.scheduler.restart(sequence for sequence in self._callbacks if not sequence.finished)

    def _weights_changed(self, thorough: bool) -> bool:
        """A runner that does not say so holds weights of its own."""
        ask = getattr(self.runner, "weights_changed", None)
        return ask is not None and ask(thorough)

    def require_open(self) -> None:
        """Raises UserError once the engine is closed."""
        if self._closed:
            raise UserError("This LLM is closed.", hint="Load the model again:  LLM(path)")

    def run(self, sequences: Iterable[Sequence]) -> Iterator[TokenEvent]:
        """The events of these sequences, as they come. Closing the iterator aborts them. Raises a sequence's error."""
        own, events = list(sequences), deque[TokenEvent]()
        for sequence in own:
            self.add(sequence, events.append)
        unfinished = len(own)
        try:
            while unfinished:
                with self._lock:  # another thread's step may bring events for this one
                    while not events:
                        if not any(sequence in self._callbacks for sequence in own):
                            return  # the engine was closed
                        self.step()
                event = events.popleft()
                if event.error:
                    raise event.error
                unfinished -= event.last
                yield event
        finally:
            for sequence in own:
                self.abort(sequence)

    def abort_all(self) -> None:
        for sequence in list(self._callbacks):
            self.abort(sequence)

    def close(self) -> None:
        """Abort what runs and release the runner's threads and memory. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self.abort_all()
        for trace in self._traces:
            trace.close()
        self.runner.close()

    # -- tokens ---------------------------------------------------------------------------------------------------

    def _append_tokens(self, step: ScheduledStep, logits: np.ndarray) -> None:
        """Reduce the logits (R,V) of prompts; sample a token from each of the others, and append it to its sequence."""
        if step.prompt_logits:
            logits = self._reduce_prompts(step, logits)
        for sequence, row, (token, error) in zip(step.sampling, logits, self._sample(logits, step), strict=True):
            if error and not sequence.finished:
                self._fail(sequence, error)
            if sequence.finished:
                continue
            if sequence.on_logits is not None:
                sequence.on_logits(row)
            count = sequence.params.logprobs
            self._append(sequence, token, None if count is None else listed_logprobs(row, token, count))

    def _reduce_prompts(self, step: ScheduledStep, logits: np.ndarray) -> np.ndarray:
        """Note what rows for prompt_logprobs say -> the logits of the other rows, which sample.    (R,V) -> (R',V)"""
        sampling, sampled, end = set(step.sampling), list[int](), 0
        for sequence, count in zip(step.sequences, step.num_logits, strict=True):
            start, end = end, end + count
            if sequence in sampling:
                sampled.append(end - 1)
            record = sequence.prompt_logprobs
            try:
                for row in range(start, end - (sequence in sampling)):
                    assert record is not None, "only rows for prompt_logprobs do not sample"
                    record.entries.append(listed_logprobs(logits[row], record.next_token, record.count))
            except NanoLlamaError as error:
                self._fail(sequence, error)
        return logits[sampled]

    def _sample(self, logits: np.ndarray, step: ScheduledStep) -> list[tuple[int, NanoLlamaError | None]]:
        """(token, None) for each row, or (-1, error) for one with broken logits, which the other rows survive."""
        try:
            return [(token, None) for token in self.sampler.sample(logits, step.sampling)]
        except NanoLlamaError:
            return [self._sample_row(row, sequence) for row, sequence in zip(logits, step.sampling, strict=True)]

    def _sample_row(self, row: np.ndarray, sequence: Sequence) -> tuple[int, NanoLlamaError | None]:
        try:
            return self.sampler.sample(row[None], [sequence])[0], None
        except NanoLlamaError as error:
            return -1, error

    def _fail(self, sequence: Sequence, error: NanoLlamaError) -> None:
        on_event = self._callbacks[sequence]
        self.abort(sequence)
        on_event(TokenEvent(sequence, -1, "", True, error))

    def _append(self, sequence: Sequence, token: int, logprobs: list[TokenLogprob] | None) -> None:
        on_event, before = self._callbacks[sequence], sequence.text.num_certain
        try:
            text = sequence.append(token, logprobs)
        except UserError as error:  # its constraint cannot be followed any further
            self._fail(sequence, error)
            return
        certain = None if logprobs is None else sequence.logprobs[before : sequence.num_certain]
        sequence.timing.first_token = sequence.timing.first_token or time.perf_counter()
        if sequence.finished:
            del self._callbacks[sequence]
            self._retire(sequence)
        on_event(TokenEvent(sequence, token, text, sequence.finished, logprobs=certain))

    def _retire(self, sequence: Sequence) -> None:
        """Free the blocks of a sequence that has finished."""
        sequence.timing.finished = time.perf_counter()
        self.scheduler.remove(sequence)
        for trace in self._traces:
            trace.ended(sequence)


def plan_blocks(runner: Runner, settings: EngineSettings) -> int:
    """The blocks that fit into kv_cache_memory, but no more than max_num_seqs sequences of full context can fill."""
    block_bytes = runner.kv_bytes_per_token * BLOCK_SIZE
    affordable = settings.kv_cache_bytes // block_bytes
    if affordable < 1:
        raise UserError(
            f"kv_cache_memory={settings.kv_cache_memory!r} is too little: "
            f"{BLOCK_SIZE} tokens take {block_bytes:,} bytes.",
            hint="Raise it, for example to 1GiB.",
        )
    return min(affordable, settings.max_num_seqs * blocks_for(runner.config.max_position_embeddings))
