"""Replayer: Volume 1 computes what the engine computed, once more and to be looked at, without being in its way.

One replay at a time, in a thread of the lowest priority, with one thread of BLAS. It stops between two layers when
nobody waits for it any more, and the next one waits for that. The weights are read from the model's file, in float32,
not the engine's quantized form. Volume 2 computes beside it where the command hands its forward pass in: the server
itself needs no torch.
Not here: the endpoint (inspection/replay.py). Tests: tests/server/page/test_inspect_replay.py.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from nano_llama.core.config import LlamaConfig
from nano_llama.formats import open_text_model
from nano_llama.server.errors import ApiError
from nano_llama.vol1_numpy.data_parallel import blas_threads
from nano_llama.vol1_numpy.ops.array import Array
from nano_llama.vol1_numpy.replay import LayerReplay, Replay

T = TypeVar("T")
# A model's weights, its config, ids (T,) -> its logits after the last one (V,)
LastLogits = Callable[[Mapping[str, Array], LlamaConfig, Sequence[int]], Array]
NICENESS = 19  # the lowest priority
PATIENCE = 2.0  # seconds that a replay waits for the one before it, if that is still wanted


class Stopped(Exception):
    """Nobody waits for the rest."""


class Run:
    """One replay: its layers until it is stopped."""

    def __init__(self, replay: Replay, volume2: LastLogits | None, stopped: threading.Event):
        self.replay, self.volume2 = replay, volume2
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
    """Over the model at `path`. volume2: that volume's forward pass, or None where torch is not installed."""

    def __init__(self, path: str | Path, volume2: LastLogits | None = None):
        self._path, self._volume2 = path, volume2
        self._thread = ThreadPoolExecutor(1, "nano-llama-replay", lower_priority)
        self._running: Future | None = None
        self._stopped = threading.Event()  # of what runs

    async def run(self, work: Callable[[Run], T]) -> T:
        """What `work` makes of a replay. Raises ApiError 429 where another one runs for longer than PATIENCE. One that
        nobody waits for any more is waited for: it ends within a layer; that its client left may be heard later."""
        deadline = time.monotonic() + PATIENCE
        while self._running is not None and not self._running.done():
            if not self._stopped.is_set() and time.monotonic() > deadline:
                raise ApiError(429, "Another replay is running.", code="busy", headers={"Retry-After": "1"})
            await asyncio.sleep(0.01)
        stopped = self._stopped = threading.Event()

        def replayed() -> T:
            with blas_threads(1):
                return work(Run(self._replay, self._volume2, stopped))

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
