"""The size of a step, in tokens, that takes no longer than a given time: measured, on this model and machine.

While a long prompt is computed, everyone else's next token waits for the step: a short step keeps a stream smooth, a
long one computes the prompt a little faster. A step is timed at a depth of DEPTH tokens, where attention costs what it
does for a usual prompt; deeper ones take longer. Not here: what a step computes (scheduler.py).
Tests: tests/vol3/test_step_size.py.
"""

import time
from collections.abc import Callable

from nano_llama.vol3_engine.batch import Chunk, PackedBatch
from nano_llama.vol3_engine.blocks import BLOCK_SIZE, blocks_for
from nano_llama.vol3_engine.runner import Runner

DEPTH = 1024
SMALLEST, LARGEST = 32, 512  # tokens of a step
REPEATS = 3  # the fastest counts: another process may have had the core


def measured_step_size(
    runner: Runner, num_blocks: int, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> int:
    """The largest step, in tokens, that takes at most `seconds`: a multiple of BLOCK_SIZE from SMALLEST to LARGEST.

    Steps of 2, 4, 8 ... times SMALLEST tokens are timed until one takes too long; between it and the one before, time
    is taken to grow linearly. The KV cache is written, so no sequence may have blocks of it.
    """
    depth = min(DEPTH, runner.config.max_position_embeddings, num_blocks * BLOCK_SIZE) // BLOCK_SIZE * BLOCK_SIZE
    largest = min(LARGEST, depth)
    if largest <= SMALLEST:
        return SMALLEST

    def step_seconds(tokens: int) -> float:
        """Of a prompt's last tokens; those before them all lie in block 0, so they need not be computed."""
        before = (depth - tokens) // BLOCK_SIZE
        chunk = Chunk([0] * tokens, depth - tokens, depth, [0] * before + list(range(before, blocks_for(depth))))
        times = []
        for _ in range(REPEATS):
            began = clock()
            runner.execute(PackedBatch.pack([chunk]))
            times.append(clock() - began)
        return min(times)

    runner.execute(PackedBatch.pack([Chunk([0] * BLOCK_SIZE, 0, depth, [0])]))
    step_seconds(SMALLEST)  # warms up: compiles, allocates, touches the cache
    size, taken = SMALLEST, step_seconds(SMALLEST)
    while taken < seconds and size < largest:
        following = min(2 * size, largest)
        longer = step_seconds(following)
        if longer > seconds:
            between = size + (following - size) * (seconds - taken) / (longer - taken)
            return max(SMALLEST, int(between) // BLOCK_SIZE * BLOCK_SIZE)
        size, taken = following, longer
    return size
