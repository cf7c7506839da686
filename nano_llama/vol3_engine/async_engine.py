"""AsyncEngine: an LLM for asyncio. One thread of its own runs the steps; all other threads only send it commands.

    async with AsyncEngine(LLM("model.gguf")) as engine:
        async for piece in engine.stream("Once upon a time", SamplingParams(max_tokens=64)):
            print(piece, end="")

Requests of many tasks run together in the engine's batches. A task that is cancelled, or stops iterating, aborts its
own request only. A step that fails fails the requests that were in it; the engine stays up for the next. How many may
wait is bounded (admission.py). What a step brings is handed to the event loop at once, however many sequences it is of.
Not here: HTTP, what a step does (engine.py). Tests: tests/vol3/test_async_engine.py.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.adapters import AdapterChoice, Default
from nano_llama.vol3_engine.admission import DEFAULT_MAX_WAITING, Admission, Queue
from nano_llama.vol3_engine.engine import TokenEvent
from nano_llama.vol3_engine.llm import LLM
from nano_llama.vol3_engine.outputs import RequestOutput, TextPiece
from nano_llama.vol3_engine.preparation import Preparation, Prompt
from nano_llama.vol3_engine.requests import Request
from nano_llama.vol3_engine.statistics import EngineStats, Meter

T = TypeVar("T")
Event = tuple[int, TokenEvent]  # and the number of the request, of those that were submitted together
MIN_WAITING_TOKENS = 65_536


class Stream:
    """What the engine brings for requests that were submitted together. Iterate over it once, in the task's own loop.

        async with engine.submit([request]) as stream:
            async for pieces in stream:                 # what one step brought, or several if the reader was slow
                for request, piece in pieces: ...

    Ends after the last piece of the last sample; raises what made a request fail. Leaving the `async with`, or `abort`,
    frees everything that is unfinished.
    """

    def __init__(self, engine: "AsyncEngine", requests: Sequence[Request]):
        self.requests = requests
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._events: list[Event] = []
        self._failure: BaseException | None = None
        self._unfinished = [len(request.sequences) for request in requests]

    async def __aenter__(self) -> "Stream":
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.abort()

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> list[tuple[Request, TextPiece]]:
        while not self._events:
            if self._failure is not None:
                raise self._failure
            if not any(self._unfinished):
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        events, self._events = self._events, []
        pieces = []
        for index, event in events:
            if event.error is not None:
                self.abort()
                raise event.error
            self._unfinished[index] -= event.last
            request = self.requests[index]
            pieces.append((request, self._engine.llm.piece_of(request, event, last=not self._unfinished[index])))
        if not any(self._unfinished):
            self._engine._abort(self)  # of which nothing is left to free
        return pieces

    def abort(self) -> None:
        """Free what is unfinished, at the latest after the step that runs. May be called at any time, and twice."""
        if any(self._unfinished) and self._failure is None:
            self._fail(UserError("This request was aborted."))
        self._engine._abort(self)

    # -- called in the event loop, for the engine's thread ----------------------------------------------------------

    def _receive(self, events: "list[Event]") -> None:
        if self._failure is None:
            self._events += events
            self._arrived.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._arrived.set()


class AsyncEngine:
    """Takes over an LLM, which nobody else may use from then on.

    max_waiting: how many sequences may wait for a place among the max_num_seqs that run. max_waiting_tokens: how many
    prompt tokens may wait; None: what four full contexts hold, at least MIN_WAITING_TOKENS.
    """

    def __init__(self, llm: LLM, *, max_waiting: int = DEFAULT_MAX_WAITING, max_waiting_tokens: int | None = None):
        self.llm = llm
        if max_waiting_tokens is None:
            max_waiting_tokens = max(4 * llm.config.max_position_embeddings, MIN_WAITING_TOKENS)
        self.admission = Admission(llm.engine.scheduler.max_num_seqs, max_waiting, max_waiting_tokens)
        self._meter = Meter()
        llm.engine.subscribe(self._meter)
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()  # None: close
        self._streams: dict[Stream, None] = {}  # submitted and not over; event loops add and remove
        self._preparation = Preparation(llm)
        self._running: dict[Stream, int] = {}  # how many of its sequences the engine has; of the engine's thread
        self._outbox: dict[Stream, list[Event]] = {}  # of the step that runs
        self.failure: BaseException | None = None  # what ended the thread, which should never be
        self._closed = False
        self._close_lock = threading.Lock()  # no request is queued behind the command to close
        self._thread = threading.Thread(target=self._run, name="nano-llama-engine", daemon=True)
        self._thread.start()

    async def __aenter__(self) -> "AsyncEngine":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    # -- for tasks ------------------------------------------------------------------------------------------------

    def require_room(self) -> None:
        """Raise EngineOverloaded if not even one sequence may wait now: ask before encoding a prompt.

        Samples of prompts that are being encoded count as waiting here, or else many would be encoded for nothing.
        """
        self.admission.check(self._queue(self._preparation.samples), self._meter.ends_per_second)

    async def prepare(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        number: int = 0,
        adapter: AdapterChoice = Default.ADAPTER,
        cache_salt: str | None = None,
        **template: Any,
    ) -> Request:
        """A request, ready for `submit`; the arguments are those of LLM.request.

        Encoding a long text, or starting a template's process, takes a while: it is done in a thread, so that other
        tasks need not wait. Raises UserError for what cannot be honoured; ContextLengthError if the prompt and
        max_tokens together are longer than the context (LLM would end the text there).
        """
        params = SamplingParams() if params is None else params
        if not isinstance(params, SamplingParams):
            raise UserError(f"sampling_params={params!r:.80} must be a SamplingParams.")
        return await self._preparation.request(prompt, params, number, adapter, cache_salt, template)

    async def with_template(self, work: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """As asyncio.to_thread, for what runs a chat template. Cancelled before a thread is free, it is not begun."""
        return await self._preparation.with_template(partial(work, *arguments, **named))

    def submit(self, requests: Sequence[Request]) -> Stream:
        """Queue these requests, all their samples or none. Call it in an event loop.

        Raises EngineOverloaded if they may not wait now, UserError if they never may or the engine is closed.
        """
        self.admission.check(self._queue(), self._meter.ends_per_second, requests)
        stream = Stream(self, requests)
        with self._close_lock:
            if self._closed:
                raise UserError("This engine is closed.", hint="Make a new AsyncEngine.")
            if self.failure is not None:
                raise self._failed()
            self._streams[stream] = None
            self._commands.put(lambda: self._add(stream))
        return stream

    async def stream(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        *,
        adapter: AdapterChoice = Default.ADAPTER,
    ) -> AsyncGenerator[TextPiece, None]:
        """One prompt or conversation, token by token, all n samples; the last piece carries the result as `.output`.

        Raises UserError for what cannot be honoured, before anything runs; EngineOverloaded.
        """
        async with self.submit([await self.prepare(prompt, sampling_params, adapter=adapter)]) as stream:
            async for pieces in stream:
                for _, piece in pieces:
                    yield piece

    async def generate(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        *,
        adapter: AdapterChoice = Default.ADAPTER,
    ) -> RequestOutput:
        """One prompt or conversation, to its end; all n samples."""
        request = await self.prepare(prompt, sampling_params, adapter=adapter)
        async with self.submit([request]) as stream:
            async for _ in stream:
                pass
        return self.llm.output_of(request)

    def stats(self) -> EngineStats:
        """What the engine is doing. Takes no lock, so it answers while a step runs, however long."""
        meter, pool, now = self._meter, self.llm.engine.scheduler.pool, self._queue()
        held, kept = len(pool.ref_counts), pool.num_evictable
        return EngineStats(
            running=now.running,
            waiting=now.waiting,
            waiting_tokens=now.waiting_tokens,
            busy=bool(now.running or now.waiting),
            blocks_total=pool.num_blocks,
            blocks_held=held,
            blocks_kept=kept,
            blocks_empty=pool.num_blocks - held - kept,
            steps=meter.steps,
            seconds_since_step=meter.seconds_since_step,
            prompt_tokens=meter.prompt_tokens,
            generation_tokens=meter.generation_tokens,
            tokens_per_second=meter.tokens_per_second,
            prefix_queries=meter.prefix_queries,
            prefix_hits=meter.prefix_hits,
            preemptions=meter.preemptions,
        )

    async def close(self) -> None:
        """Abort what runs, end the thread and release the model. May be called twice."""
        with self._close_lock:
            if not self._closed:
                self._closed = True
                self._commands.put(None)
        self._preparation.close()
        await asyncio.to_thread(self._thread.join)

    def _queue(self, preparing: int = 0) -> Queue:
        return Queue.of((request for stream in self._streams for request in stream.requests), preparing)

    def _abort(self, stream: Stream) -> None:
        """Nobody reads it any more."""
        if stream in self._streams:
            del self._streams[stream]
            self._commands.put(lambda: self._remove(stream))

    # -- in the engine's thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._run_until_closed()
        except BaseException as error:  # in handling an error: what the engine holds can be trusted no more
            with self._close_lock:
                self.failure = error
                left = list(self._streams)
            for stream in left:
                with suppress(RuntimeError):  # the event loop has been closed: nobody reads
                    stream._loop.call_soon_threadsafe(self._end, stream, self._failed())
            raise

    def _failed(self) -> NanoLlamaError:
        return NanoLlamaError(f"The engine has failed: {self.failure!r}", hint="Load the model again.")

    def _run_until_closed(self) -> None:
        """Run all queued commands, then one step, and so on. An error fails requests, not the thread."""
        while True:
            try:
                if not self._run_commands():
                    break
                if self.llm.engine.has_work:
                    self.llm.engine.step()
            except Exception as error:
                self._fail_all(error)
            self._send()
        self._fail_all(UserError("The engine was closed while this request was running."))
        self.llm.close()

    def _run_commands(self) -> bool:
        """Run the queued commands; with nothing to compute, wait for one. False: it was the one to close."""
        with suppress(queue.Empty):
            while True:
                command = self._commands.get(block=not self.llm.engine.has_work)
                if command is None:
                    return False
                command()
        return True

    def _add(self, stream: Stream) -> None:
        self._running[stream] = sum(len(request.sequences) for request in stream.requests)
        for index, request in enumerate(stream.requests):
            note = partial(self._note, stream, index)
            for sequence in request.sequences:
                self.llm.engine.add(sequence, on_event=note)

    def _remove(self, stream: Stream) -> None:
        self._running.pop(stream, None)
        for request in stream.requests:
            for sequence in request.sequences:
                self.llm.engine.abort(sequence)

    def _note(self, stream: Stream, index: int, event: TokenEvent) -> None:
        self._outbox.setdefault(stream, []).append((index, event))
        self._running[stream] -= event.last
        if not self._running[stream]:
            del self._running[stream]

    def _send(self) -> None:
        """Hand what the step brought to the event loops, in one call for each."""
        outbox, self._outbox = self._outbox, {}
        for loop in {stream._loop for stream in outbox}:
            own = [(stream, events) for stream, events in outbox.items() if stream._loop is loop]
            with suppress(RuntimeError):  # the event loop has been closed: nobody reads
                loop.call_soon_threadsafe(_deliver, own)

    def _fail_all(self, error: Exception) -> None:
        reported = (
            error if isinstance(error, NanoLlamaError) else NanoLlamaError(f"A step of the engine failed: {error!r}")
        )
        self._send()
        self.llm.engine.abort_all()
        failed, self._running = self._running, {}
        for stream in failed:
            with suppress(RuntimeError):  # as above
                stream._loop.call_soon_threadsafe(self._end, stream, reported)

    def _end(self, stream: Stream, error: NanoLlamaError) -> None:
        """In the event loop: the stream was in a step that failed."""
        self._streams.pop(stream, None)
        stream._fail(error)


def _deliver(batch: list[tuple[Stream, list[Event]]]) -> None:
    for stream, events in batch:
        stream._receive(events)
