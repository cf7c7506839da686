"""AsyncEngine: an LLM for asyncio. One thread of its own runs the steps; all other threads only send it commands.

    async with AsyncEngine(LLM("model.gguf")) as engine:
        async for piece in engine.stream("Once upon a time", SamplingParams(max_tokens=64)):
            print(piece, end="")

Requests of many tasks run together in the engine's batches. A task that is cancelled, or stops iterating, aborts its
own request only. A step that fails fails the requests that were in it; the engine stays up for the next.
Not here: HTTP, what a step does (engine.py). Tests: tests/vol3/test_async_engine.py.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress

from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.engine import TokenEvent
from nano_llama.vol3_engine.llm import LLM
from nano_llama.vol3_engine.outputs import RequestOutput, TextPiece
from nano_llama.vol3_engine.requests import Request

Prompt = str | Sequence[int] | Sequence[Mapping[str, str]]  # text, ids, or the messages of a conversation
Send = Callable[[TokenEvent | BaseException], None]  # passes an event, or what ends the request, to its task


class AsyncEngine:
    """Takes over an LLM, which nobody else may use from then on."""

    def __init__(self, llm: LLM):
        self.llm = llm
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()  # None: close
        self._running: dict[int, Send] = {}  # by the id() of the request
        self._closed = False
        self._close_lock = threading.Lock()  # no request is queued behind the command to close
        self._thread = threading.Thread(target=self._loop, name="nano-llama-engine", daemon=True)
        self._thread.start()

    async def __aenter__(self) -> "AsyncEngine":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    # -- for tasks ------------------------------------------------------------------------------------------------

    async def stream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None
    ) -> AsyncGenerator[TextPiece, None]:
        """One prompt or conversation, token by token; the last piece carries the whole result as `.output`.

        The pieces of n samples alternate. Raises UserError for what cannot be honoured, before anything runs.
        """
        unfinished = 1 if sampling_params is None else getattr(sampling_params, "n", 1)
        async with aclosing(self._events(prompt, sampling_params)) as events:
            async for event, request in events:
                unfinished -= event.last
                yield self.llm.piece_of(request, event, last=not unfinished)

    async def generate(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> RequestOutput:
        """One prompt or conversation, to its end; all n samples."""
        async with aclosing(self._events(prompt, sampling_params)) as events:
            requests = [request async for _, request in events]
        return self.llm.output_of(requests[-1])

    async def close(self) -> None:
        """Abort what runs, end the thread and release the model. May be called twice."""
        with self._close_lock:
            if not self._closed:
                self._closed = True
                self._commands.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _events(
        self, prompt: Prompt, params: SamplingParams | None
    ) -> AsyncGenerator[tuple[TokenEvent, Request], None]:
        params = SamplingParams() if params is None else params
        if not isinstance(params, SamplingParams):
            raise UserError(f"sampling_params={params!r:.80} must be a SamplingParams.")
        # Encoding a long text, or starting a template's process, takes a while: other tasks must not wait for it.
        request = await asyncio.to_thread(self.llm.request, prompt, params)
        loop, inbox = asyncio.get_running_loop(), asyncio.Queue[TokenEvent | BaseException]()

        def send(event: TokenEvent | BaseException) -> None:
            with suppress(RuntimeError):  # the event loop has been closed: nobody reads
                loop.call_soon_threadsafe(inbox.put_nowait, event)

        unfinished = len(request.sequences)
        with self._close_lock:
            if self._closed:
                raise UserError("This engine is closed.", hint="Make a new AsyncEngine.")
            self._commands.put(lambda: self._add(request, send))
        try:
            while unfinished:
                event = await inbox.get()
                if isinstance(event, BaseException):
                    raise event
                if event.error:
                    raise event.error
                unfinished -= event.last
                yield event, request
        finally:
            self._commands.put(lambda: self._abort(request))  # does nothing for what has finished

    # -- in the engine's thread -----------------------------------------------------------------------------------

    def _loop(self) -> None:
        """Until closed: run all queued commands, then one step. An error fails requests, never the thread."""
        while True:
            try:
                if not self._run_commands():
                    break
                if self.llm.engine.has_work:
                    self.llm.engine.step()
            except Exception as error:
                self._fail_all(error)
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

    def _add(self, request: Request, send: Send) -> None:
        self._running[id(request)] = send
        for sequence in request.sequences:
            self.llm.engine.add(sequence, on_event=send)

    def _abort(self, request: Request) -> None:
        self._running.pop(id(request), None)
        for sequence in request.sequences:
            self.llm.engine.abort(sequence)

    def _fail_all(self, error: Exception) -> None:
        reported = (
            error if isinstance(error, NanoLlamaError) else NanoLlamaError(f"A step of the engine failed: {error!r}")
        )
        self.llm.engine.abort_all()
        for send in self._running.values():
            send(reported)
        self._running.clear()
