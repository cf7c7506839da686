"""How fast a runner is: prompts read, then tokens decoded, and what the memory's speed would allow.

Texts of no meaning go straight to the runner, as packed batches: what is timed is its steps, and taking the likeliest
token of each; scheduling and sampling come on top in `LLM`. Not here: other engines (bench/engine.py), the memory's
speed (roofline.py). Tests: tests/vol3/test_benchmark.py.

    bytes a step   = weights, once for all texts + what each text has in the cache
    roofline       = texts * bytes a second / bytes a step            tokens a second, at most
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol, runtime_checkable

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.vol3_engine.batch import Chunk, PackedBatch
from nano_llama.vol3_engine.blocks import BLOCK_SIZE
from nano_llama.vol3_engine.runner import Runner

CHUNK = 512  # rows of a step while prompts are read, as the engine's settings have it


@runtime_checkable
class Timed(Protocol):
    """A runner that tells the parts of its steps apart."""

    seconds: dict[str, float]  # of each part, all steps so far


@dataclass(frozen=True)
class Load:
    """What is measured: so many texts at once, each with so many tokens read and written; how often."""

    batch: int = 1
    prompt_tokens: int = 512
    new_tokens: int = 64
    repeats: int = 3


@dataclass
class Speed:
    """What was found: seconds are medians over the repeats."""

    load: Load
    prefill_seconds: float  # all prompts
    step_seconds: float  # one token of every text
    weight_bytes: int  # a step's
    kv_bytes: float  # a step's, at the middle of the decoding
    parts: dict[str, float] = field(default_factory=dict)  # seconds of a step by its part

    @property
    def prefill_tokens_per_second(self) -> float:
        return self.load.batch * self.load.prompt_tokens / self.prefill_seconds

    @property
    def decode_tokens_per_second(self) -> float:
        return self.load.batch / self.step_seconds

    @property
    def bytes_per_token(self) -> float:
        return (self.weight_bytes + self.kv_bytes) / self.load.batch

    def roofline(self, bytes_per_second: float) -> float:
        """Tokens a second, were reading memory all there is to do."""
        return bytes_per_second / self.bytes_per_token


def check_load(load: Load, context: int) -> None:
    """Raise UserError where the texts would outgrow the model's context."""
    length = load.prompt_tokens + load.new_tokens
    if length > context:
        raise UserError(
            f"{load.prompt_tokens} tokens of prompt and {load.new_tokens} new ones make {length}; the model's context, "
            f"max_position_embeddings, is {context}.",
            hint=f"Stay below {context} together.",
        )


def measure(
    runner: Runner, load: Load, clock: Callable[[], float] = time.perf_counter, watch: Callable[[str], None] = print
) -> Speed:
    """Run the load on a fresh runner, which is closed afterwards; watch hears of each round. Raises UserError."""
    check_load(load, runner.config.max_position_embeddings)
    texts = _Texts(runner, load)
    try:
        texts.round(clock)  # warms up: compiles, touches memory
        rounds = []
        for number in range(load.repeats):
            rounds.append(texts.round(clock))
            watch(f"round {number + 1} of {load.repeats}")
    finally:
        runner.close()
    reads, steps, parts = zip(*rounds, strict=True)
    middle = load.prompt_tokens + load.new_tokens / 2
    return Speed(
        load,
        median(reads),
        median(steps),
        runner.weight_bytes,
        load.batch * middle * runner.kv_bytes_per_token,
        {name: median(part[name] for part in parts) for name in parts[0]},
    )


class _Texts:
    """The texts of a load, and the batches that read and continue them."""

    def __init__(self, runner: Runner, load: Load):
        self.runner, self.load = runner, load
        blocks = -(-(load.prompt_tokens + load.new_tokens) // BLOCK_SIZE)  # of a text
        runner.allocate(load.batch * blocks, BLOCK_SIZE)
        self.tables = [list(range(s * blocks, (s + 1) * blocks)) for s in range(load.batch)]
        self.rng = np.random.default_rng(0)

    def round(self, clock: Callable[[], float]) -> tuple[float, float, dict[str, float]]:
        """Once over the load -> seconds of all prompts, of a step, and of a step's parts."""
        load = self.load
        shape = (load.batch, load.prompt_tokens)
        prompts = self.rng.integers(0, self.runner.config.vocab_size, shape).tolist()
        began = clock()
        tokens = self._read(prompts)
        read = clock()
        before = dict(self.runner.seconds) if isinstance(self.runner, Timed) else {}
        for step in range(load.new_tokens):
            rows = [[token] for token in tokens]
            tokens = self._step(rows, list(range(load.batch)), load.prompt_tokens + step)
        ended = clock()
        after = self.runner.seconds if isinstance(self.runner, Timed) else {}
        parts = {name: (after[name] - before[name]) / load.new_tokens for name in before}
        return read - began, (ended - read) / load.new_tokens, parts

    def _read(self, prompts: list[list[int]]) -> list[int]:
        """Prompts in steps of at most CHUNK rows: several short ones together, a long one in pieces."""
        length = self.load.prompt_tokens
        tokens = []
        together = max(1, CHUNK // length)
        for first in range(0, len(prompts), together):
            group = list(range(first, min(first + together, len(prompts))))
            for at in range(0, length, CHUNK):
                chosen = self._step([prompts[s][at : at + CHUNK] for s in group], group, at)
            tokens += chosen
        return tokens

    def _step(self, rows: list[list[int]], texts: list[int], position: int) -> list[int]:
        """Rows of these texts, from that position on -> the likeliest next token of each."""
        prompt = self.load.prompt_tokens
        chunks = (Chunk(row, position, prompt, self.tables[s]) for row, s in zip(rows, texts, strict=True))
        logits = self.runner.execute(PackedBatch.pack(chunks))  # (S,V)
        return logits.argmax(axis=-1).tolist()
