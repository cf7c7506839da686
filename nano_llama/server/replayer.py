"""Replayer: Volume 1 computes what the engine computed, once more and to be looked at, without being in its way.

One replay at a time, in a thread of the lowest priority, with one thread of BLAS; it stops between two layers when
nobody waits for it any more. The weights are read from the model's file, in float32, not the engine's quantized form.
Not here: the endpoint (inspection/replay.py). Tests: tests/server/page/test_inspect_replay.py.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from nano_llama.formats import open_text_model
from nano_llama.server.errors import ApiError
from nano_llama.vol1_numpy.data_parallel import blas_threads
from nano_llama.vol1_numpy.ops.array import Array
from nano_llama.vol1_numpy.replay import LayerReplay, Replay

T = TypeVar("T")
NICENESS = 19  # the lowest priority


class Stopped(Exception):
    """Nobody waits for the rest."""


class Run:
    """One replay: its layers until it is stopped."""

    def __init__(self, replay: Replay, stopped: threading.Event):
        self.replay = replay
        self._stopped = stopped

    def layers(self, tokens: Array) -> Iterator[LayerReplay]:
        for layer in self.replay.layers(tokens):
            self.check()
            yield layer

    def check(self) -> None:
        """Raise Stopped once nobody waits."""
        if self._stopped.is_set():
            raise Stopped


class Replayer:
    """Over the model at `path`."""

    def __init__(self, path: str | Path):
        self._path = path
        self._thread = ThreadPoolExecutor(1, "nano-llama-replay", lower_priority)
        self._running: Future | None = None

    async def run(self, work: Callable[[Run], T]) -> T:
        """What `work` makes of a replay. Raises ApiError 429 while another one runs."""
        if self._running is not None and not self._running.done():
            raise ApiError(429, "Another replay is running.", code="busy", headers={"Retry-After": "1"})
        stopped = threading.Event()

        def replayed() -> T:
            with blas_threads(1):
                return work(Run(self._replay, stopped))

        self._running = self._thread.submit(replayed)
        try:
            return await asyncio.wrap_future(self._running)
        finally:
            stopped.set()

    @cached_property
    def _replay(self) -> Replay:
        weights = open_text_model(self._path)
        return Replay(weights, weights.config)


def lower_priority() -> None:
    """Of this thread alone, where the system has that (Linux)."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
