"""The step's size: the largest that keeps to the time, of a runner whose steps take a known time."""

import pytest

from helpers.stub_engine import ByteTokenizer, ScriptedRunner, small_config
from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.blocks import BLOCK_SIZE
from nano_llama.vol3_engine.llm import LLM
from nano_llama.vol3_engine.step_size import LARGEST, SMALLEST, measured_step_size


class TimedRunner:
    """A step takes start + tokens * each seconds of its own clock; sometimes a neighbour has the core."""

    def __init__(self, start, each, context=4096, disturbed=()):
        self.config = small_config(max_position_embeddings=context)
        self.start, self.each, self.now, self.steps, self.disturbed = start, each, 0.0, 0, disturbed
        self.depths, self.blocks = [], 0

    def execute(self, batch):
        self.depths.append(batch.length(0))
        assert len(batch.block_tables[0]) * BLOCK_SIZE >= batch.length(0)
        self.blocks = max(self.blocks, *batch.block_tables[0])
        self.now += self.start + batch.num_tokens * self.each + (5.0 if self.steps in self.disturbed else 0)
        self.steps += 1


@pytest.mark.parametrize("each", [0.0001, 0.0004, 0.001, 0.0015])
def test_a_step_of_that_size_takes_the_time_and_a_larger_one_longer(each):
    runner = TimedRunner(0.01, each)
    size = measured_step_size(runner, 4096, 0.1, lambda: runner.now)
    assert size % BLOCK_SIZE == 0
    assert 0.01 + size * each <= 0.1
    assert size == LARGEST or 0.01 + (size + BLOCK_SIZE) * each > 0.1


def test_a_slow_machine_gets_the_smallest_and_a_fast_one_the_largest():
    slow, fast = TimedRunner(1.0, 0.1), TimedRunner(0.0, 1e-9)
    assert measured_step_size(slow, 4096, 0.1, lambda: slow.now) == SMALLEST
    assert measured_step_size(fast, 4096, 0.1, lambda: fast.now) == LARGEST


def test_one_disturbed_measurement_changes_nothing():
    quiet, disturbed = TimedRunner(0.01, 0.001), TimedRunner(0.01, 0.001, disturbed=(3, 6))
    sizes = [measured_step_size(runner, 4096, 0.1, lambda runner=runner: runner.now) for runner in (quiet, disturbed)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(("context", "num_blocks"), [(16, 100), (50, 100), (4096, 1), (4096, 5)])
def test_a_short_context_or_a_small_cache_bounds_it(context, num_blocks):
    runner = TimedRunner(0.0, 1e-9, context=context)
    size = measured_step_size(runner, num_blocks, 0.1, lambda: runner.now)
    assert size <= max(SMALLEST, min(context, num_blocks * BLOCK_SIZE))
    assert all(depth <= num_blocks * BLOCK_SIZE for depth in runner.depths) and runner.blocks < num_blocks


def test_an_engine_keeps_to_it_and_answers_as_before():
    params = SamplingParams(max_tokens=5, seed=1, ignore_eos=True)
    llm, alone = (LLM.from_runner(ScriptedRunner(), ByteTokenizer(), max_num_seqs=3) for _ in range(2))
    llm.generate("x" * 40, params)
    size = llm.engine.limit_step_time(0.1)
    llm.engine.runner.steps.clear()
    assert llm.generate("x" * 100, params)[0].token_ids == alone.generate("x" * 100, params)[0].token_ids
    assert max(rows for rows, _ in llm.engine.runner.steps) <= size
    llm.engine.add(llm.request("a", params).sequences[0], on_event=lambda event: None)
    with pytest.raises(UserError, match="while sequences run"):
        llm.engine.limit_step_time(0.1)
