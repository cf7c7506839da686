"""Service: what the handlers of requests need, at request.app.state.service: the engine, the settings, the metrics.

Tests: tests/server/test_app.py.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from starlette.requests import Request

from nano_llama.server.adapters import Adapter, served_names
from nano_llama.server.bodies import HeldBodies
from nano_llama.server.errors import ApiError
from nano_llama.server.feed import Event, Feed
from nano_llama.server.metrics import Metrics
from nano_llama.server.replayer import Replayer
from nano_llama.server.settings import ServerSettings

if TYPE_CHECKING:
    from nano_llama.server.streaming import Watch
    from nano_llama.tokenizer import Tokenizer
    from nano_llama.vol3_engine.async_engine import AsyncEngine
    from nano_llama.vol3_engine.llm import LLM
    from nano_llama.vol3_engine.statistics import EngineStats

DECODED_AT_ONCE = 2  # requests with pictures; others wait, so that threads are left for what is short
State = Literal["loading", "ready", "draining", "failed"]


class Service:
    """One model that is served, and its adapters, from the first second: while it loads, requests get a 503."""

    def __init__(self, settings: ServerSettings, model_ids: Sequence[str], adapters: Sequence[Adapter] = ()):
        self.settings = settings
        self.adapters = {adapter.name: adapter.folder for adapter in adapters}
        self.model_ids = tuple(served_names(model_ids, adapters))  # what clients may ask for; the first is the default
        self.created = int(time.time())
        self.draining = False
        self.loading_over = asyncio.Event()  # the model is loaded, or will not be waited for any more
        self.running: set[Watch] = set()  # the requests that the engine has
        self.in_flight = 0  # requests that have arrived and are not answered
        self.replayer: Replayer | None = None  # None: there is no file to read the model from
        self.trace: list[Event] | None = None  # is shown in place of what this engine does
        self.bandwidth: float | None = None  # of memory, in bytes/s, once somebody had it measured
        self.measuring = asyncio.Lock()  # held while it is
        self.held = HeldBodies(settings.max_held_bytes)  # that may have pictures
        self.decoding = asyncio.Semaphore(DECODED_AT_ONCE)
        self.feed = Feed()  # the engine's events, for those who listen
        self._engine: AsyncEngine | None = None
        self.metrics = Metrics(settings.metrics_prefix, self.model_ids[0], self._stats)

    def opened(self, engine: "AsyncEngine") -> None:
        """The model is loaded: requests may come."""
        self._engine = engine
        self.loading_over.set()

    def _stats(self) -> "EngineStats | None":
        return None if self._engine is None else self._engine.stats()

    @property
    def loaded(self) -> bool:
        return self._engine is not None

    @property
    def state(self) -> State:
        if self.draining:
            return "draining"
        if self._engine is None:
            return "loading"
        return "ready" if self._engine.failure is None else "failed"

    @property
    def engine(self) -> "AsyncEngine":
        assert self._engine is not None, "app.py lets no request through before the model is loaded"
        return self._engine

    @property
    def llm(self) -> "LLM":
        return self.engine.llm

    @property
    def tokenizer(self) -> "Tokenizer":
        """Raises ApiError where the model has none."""
        if self.llm.tokenizer is None:
            raise ApiError(400, "This model has no tokenizer: it takes prompts as token ids.", code="no_tokenizer")
        return self.llm.tokenizer

    def adapter_of(self, model: str) -> str | None:
        """The adapter that answers under this id; None: the base model."""
        return model if model in self.adapters else None

    def give_up(self, reason: Exception) -> None:
        """End what the engine is doing: each client gets the reason."""
        for watch in list(self.running):
            watch.stop(reason)

    def cache_salt(self, request: Request) -> str | None:
        """Prompts share cached blocks only under the same salt: one per API key, so that nobody can time another's."""
        return getattr(request.state, "key_digest", None)
