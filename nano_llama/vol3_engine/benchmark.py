"""Speed of a runner: prefill, then decode, and the limit that memory bandwidth sets. `nano-llama bench` reports it.

Random prompts go straight to the runner as packed batches, so its steps are timed, and an argmax per token; scheduling
and sampling come on top in `LLM`. Not here: comparison with other engines (bench/engine.py), memory bandwidth
(roofline.py). Tests: tests/vol3/test_benchmark.py.

    bytes per step   = weights, once for all sequences + what each sequence has in the KV cache
    roofline         = sequences * bandwidth / bytes per step            tokens/s, at most
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

CHUNK = 512  # rows of a prefill step, the default of max_num_batched_tokens


@runtime_checkable
class Timed(Protocol):
    """A runner that times the phases of its steps."""

    seconds: dict[str, float]  # per phase, all steps so far


@dataclass(frozen=True)
class Load:
    """What is measured: the batch size, the tokens of each prompt and output, and how many rounds."""

    batch: int = 1
    prompt_tokens: int = 512
    new_tokens: int = 64
    repeats: int = 3


@dataclass
class Speed:
    """The result: seconds are medians over the rounds."""

    load: Load
    prefill_seconds: float  # all prompts
    step_seconds: float  # one token of every sequence
    weight_bytes: int  # read per step
    kv_bytes: float  # read per step, halfway through decoding
    phases: dict[str, float] = field(default_factory=dict)  # seconds per step

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
        """Tokens/s if reading memory took all the time."""
        return bytes_per_second / self.bytes_per_token


def check_load(load: Load, context: int) -> None:
    """Raise UserError if the sequences do not fit into the model's context."""
    length = load.prompt_tokens + load.new_tokens
    if length > context:
        raise UserError(
            f"{load.prompt_tokens} prompt tokens and {load.new_tokens} new ones are {length}; the model's context, "
            f"max_position_embeddings, is {context}.",
            hint=f"Give at most {context} together.",
        )


def measure(
    runner: Runner,
    load: Load,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[int], None] = lambda number: None,
) -> Speed:
    """Run the load on a runner without a KV cache yet; the caller closes it. on_round is called with 1, 2, ... after
    each round. Raises UserError."""
    check_load(load, runner.config.max_position_embeddings)
    batch = _SyntheticBatch(runner, load)
    batch.run_round(clock)  # warms up: compiles, touches memory
    rounds = []
    for number in range(load.repeats):
        rounds.append(batch.run_round(clock))
        on_round(number + 1)
    prefills, steps, phases = zip(*rounds, strict=True)
    middle = load.prompt_tokens + load.new_tokens / 2
    return Speed(
        load,
        median(prefills),
        median(steps),
        runner.weight_bytes,
        load.batch * middle * runner.kv_bytes_per_token,
        {name: median(seconds[name] for seconds in phases) for name in phases[0]},
    )


class _SyntheticBatch:
    """The sequences of a load: random prompts, continued greedily."""

    def __init__(self, runner: Runner, load: Load):
        self.runner, self.load = runner, load
        blocks = -(-(load.prompt_tokens + load.new_tokens) // BLOCK_SIZE)  # per sequence
        runner.allocate(load.batch * blocks, BLOCK_SIZE)
        self.tables = [list(range(s * blocks, (s + 1) * blocks)) for s in range(load.batch)]
        self.rng = np.random.default_rng(0)

    def run_round(self, clock: Callable[[], float]) -> tuple[float, float, dict[str, float]]:
        """All prompts and all new tokens once -> seconds of prefill, per decode step, and of its phases."""
        load = self.load
        shape = (load.batch, load.prompt_tokens)
        prompts = self.rng.integers(0, self.runner.config.vocab_size, shape).tolist()
        began = clock()
        tokens = self._prefill(prompts)
        prefilled = clock()
        before = dict(self.runner.seconds) if isinstance(self.runner, Timed) else {}
        for step in range(load.new_tokens):
            rows = [[token] for token in tokens]
            tokens = self._step(rows, list(range(load.batch)), load.prompt_tokens + step)
        ended = clock()
        after = self.runner.seconds if isinstance(self.runner, Timed) else {}
        phases = {name: (after[name] - before[name]) / load.new_tokens for name in before}
        return prefilled - began, (ended - prefilled) / load.new_tokens, phases

    def _prefill(self, prompts: list[list[int]]) -> list[int]:
        """Steps of at most CHUNK rows: several short prompts together, a long one in chunks -> each next token."""
        length = self.load.prompt_tokens
        tokens = []
        per_step = max(1, CHUNK // length)
        for first in range(0, len(prompts), per_step):
            group = list(range(first, min(first + per_step, len(prompts))))
            for at in range(0, length, CHUNK):
                following = self._step([prompts[s][at : at + CHUNK] for s in group], group, at)
            tokens += following
        return tokens

    def _step(self, rows: list[list[int]], sequences: list[int], position: int) -> list[int]:
        """Rows of these sequences, from that position on -> the most likely next token of each."""
        prompt = self.load.prompt_tokens
        chunks = (Chunk(row, position, prompt, self.tables[s]) for row, s in zip(rows, sequences, strict=True))
        logits = self.runner.execute(PackedBatch.pack(chunks))  # (S,V)
        return logits.argmax(axis=-1).tolist()
