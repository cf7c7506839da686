"""AsyncEngine: an LLM for asyncio. One thread of its own runs the steps; everybody else only sends it notes.

    async with AsyncEngine(LLM("model.gguf")) as engine:
        async for piece in engine.stream("Once upon a time", SamplingParams(max_tokens=64)):
            print(piece, end="")

Requests of many tasks run together in the engine's batches. A task that is cancelled, or stops asking, aborts its own
request and no other. A step that fails fails the requests that were in it; the engine stays up for the next.
Not here: HTTP (a server stands on this), what a step does (engine.py). Tests: tests/vol3/test_async_engine.py.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress

from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.engine import News
from nano_llama.vol3_engine.llm import LLM
from nano_llama.vol3_engine.outputs import RequestOutput, TextPiece
from nano_llama.vol3_engine.requests import Request

Prompt = str | Sequence[int] | Sequence[Mapping[str, str]]  # text, ids, or the messages of a conversation


class _Post(deque):
    """A mailbox that forwards every piece of news to a task in its event loop."""

    def __init__(self, send: Callable[[News | BaseException], None]):
        super().__init__()
        self.send = send

    def append(self, news: News) -> None:
        self.send(news)


class AsyncEngine:
    """Takes over an LLM: nobody else may use it from now on."""

    def __init__(self, llm: LLM):
        self.llm = llm
        self._notes: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._posts: dict[int, _Post] = {}  # of the requests that run, by their identity
        self._closed = False
        self._door = threading.Lock()  # nobody's note comes after the last one
        self._thread = threading.Thread(target=self._work, name="nano-llama-engine", daemon=True)
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

        Raises UserError for what cannot be honoured, before anything runs. n must be 1.
        """
        if sampling_params is not None and getattr(sampling_params, "n", 0) != 1:
            raise UserError("stream takes one SamplingParams with n=1.", hint="Use generate for several samples.")
        async with aclosing(self._news(prompt, sampling_params)) as all_news:
            async for news, request in all_news:
                output = self.llm.output_of(request) if news.last else None
                yield TextPiece(news.text, news.token, output)

    async def generate(self, prompt: Prompt, sampling_params: SamplingParams | None = None) -> RequestOutput:
        """One prompt or conversation, to its end; all n samples."""
        async with aclosing(self._news(prompt, sampling_params)) as all_news:
            requests = [request async for _, request in all_news]
        return self.llm.output_of(requests[-1])

    async def close(self) -> None:
        """Abort what runs, end the thread, and let the model go. Raises nothing where it is closed already."""
        with self._door:
            if not self._closed:
                self._closed = True
                self._notes.put(None)
        await asyncio.to_thread(self._thread.join)

    async def _news(self, prompt: Prompt, params: SamplingParams | None) -> AsyncGenerator[tuple[News, Request], None]:
        params = SamplingParams() if params is None else params
        if not isinstance(params, SamplingParams):
            raise UserError(f"sampling_params={params!r:.80} must be a SamplingParams.")
        # Encoding a long text, or starting a template's process, takes a while: others' news must not wait for it.
        request = await asyncio.to_thread(self.llm.request, prompt, params)
        loop, inbox = asyncio.get_running_loop(), asyncio.Queue[News | BaseException]()

        def send(news: News | BaseException) -> None:
            with suppress(RuntimeError):  # a loop that is closed meanwhile has no reader
                loop.call_soon_threadsafe(inbox.put_nowait, news)

        post, left = _Post(send), len(request.sequences)
        with self._door:
            if self._closed:
                raise UserError("This engine is closed.", hint="Make a new AsyncEngine.")
            self._notes.put(lambda: self._add(request, post))
        try:
            while left:
                news = await inbox.get()
                if isinstance(news, BaseException):
                    raise news
                if news.error:
                    raise news.error
                left -= news.last
                yield news, request
        finally:
            self._notes.put(lambda: self._abort(request))  # of what has ended only the note is taken back

    # -- in the engine's thread -----------------------------------------------------------------------------------

    def _work(self) -> None:
        """Until the last note: read all notes that are there, then compute a step. An error fails the requests only."""
        while True:
            try:
                if not self._read_notes():
                    break
                if self.llm.engine.has_work:
                    self.llm.engine.step()
            except Exception as error:
                self._fail_all(error)
        self._fail_all(UserError("The engine was closed while this request was running."))
        self.llm.close()

    def _read_notes(self) -> bool:
        """Do what the notes say; with nothing to compute, wait for one. False: that was the last."""
        with suppress(queue.Empty):
            while True:
                note = self._notes.get(block=not self.llm.engine.has_work)
                if note is None:
                    return False
                note()
        return True

    def _add(self, request: Request, post: _Post) -> None:
        self._posts[id(request)] = post
        for sequence in request.sequences:
            self.llm.engine.add(sequence, post)

    def _abort(self, request: Request) -> None:
        self._posts.pop(id(request), None)
        for sequence in request.sequences:
            self.llm.engine.abort(sequence)

    def _fail_all(self, error: Exception) -> None:
        told = error if isinstance(error, NanoLlamaError) else NanoLlamaError(f"A step of the engine failed: {error!r}")
        self.llm.engine.abort_all()
        for post in self._posts.values():
            post.send(told)
        self._posts.clear()
