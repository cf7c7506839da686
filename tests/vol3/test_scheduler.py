"""The scheduler's decisions, step by step, without a model; random ones are in test_engine_random.py."""

import pytest

from helpers.stub_engine import ByteDecoder
from nano_llama.core.errors import UserError
from nano_llama.core.sampling import SamplingParams
from nano_llama.vol3_engine.scheduler import Scheduler, length_limit
from nano_llama.vol3_engine.sequence import Sequence
from nano_llama.vol3_engine.text import TextStream


@pytest.fixture
def make():
    made = []

    def make(prompt, new=5):
        made.append(
            Sequence(
                request=0, index=0, prompt_ids=list(prompt), params=SamplingParams(ignore_eos=True), seed=0,
                text=TextStream(ByteDecoder()), max_length=len(prompt) + new, number=len(made),
            )
        )  # fmt: skip
        return made[-1]

    return make


def advance(scheduler):
    """Schedule a step, and append a token to every sequence that samples one -> [(number, rows)]."""
    step = scheduler.schedule()
    for sequence in step.sampling:
        sequence.append(65)
        if sequence.finished:
            scheduler.remove(sequence)
    return [(s.number, count) for s, count in zip(step.sequences, step.counts, strict=True)]


def test_a_sequence_joins_while_another_decodes(make):
    scheduler = Scheduler(4, 100, 20)
    scheduler.add(make(range(10)))
    assert advance(scheduler) == [(0, 10)]
    scheduler.add(make(range(50, 57)))
    assert advance(scheduler) == [(0, 1), (1, 7)]
    assert advance(scheduler) == [(0, 1), (1, 1)]


def test_prompt_chunks_end_on_block_boundaries_beside_decoding(make):
    scheduler = Scheduler(2, 40, 20)
    scheduler.add(make(range(5), new=20))
    advance(scheduler)
    scheduler.add(make(range(100, 190)))
    assert advance(scheduler) == [(0, 1), (1, 32)]
    assert advance(scheduler) == [(0, 1), (1, 32)]
    assert advance(scheduler) == [(0, 1), (1, 26)]


def test_the_last_arrival_is_preempted_and_resumes_first(make):
    scheduler = Scheduler(3, 100, 4, prefix_caching=False)
    first, second, third = make(range(20), new=30), make(range(40, 60), new=30), make(range(5))
    for sequence in (first, second, third):
        scheduler.add(sequence)
    assert advance(scheduler) == [(0, 20), (1, 20)], "two sequences of two blocks; no memory for the third"
    while not first.block_table or len(first) < 33:
        advance(scheduler)
    assert advance(scheduler) == [(0, 1)], "the first needs a third block, so the second is preempted"
    assert second.num_computed == 0 and second.block_table == []
    assert list(scheduler.waiting) == [second, third], "arrival order is kept"


def test_a_prefix_of_a_running_sequence_is_shared(make):
    scheduler = Scheduler(2, 100, 10)
    scheduler.add(make(range(40)))
    advance(scheduler)
    scheduler.add(make([*range(32), 99, 98]))
    step = scheduler.schedule()
    assert step.prefix_hits == {1: 32}
    assert step.counts == [1, 2] and step.batch.positions == [40, 32]
    assert step.batch.block_tables[1][:2] == step.batch.block_tables[0][:2]


def test_the_last_token_is_always_computed(make):
    scheduler = Scheduler(2, 100, 10)
    scheduler.add(make(range(32)))
    advance(scheduler)
    scheduler.add(make(range(32)))
    step = scheduler.schedule()
    assert step.prefix_hits == {1: 16} and step.counts == [1, 16]


@pytest.mark.parametrize("separate_prefill", [False, True])
def test_a_prompt_shares_blocks_of_decode_rows_unless_prefill_is_separate(make, separate_prefill):
    scheduler = Scheduler(2, 100, 10, separate_prefill=separate_prefill)
    writer = make(range(20), new=20)
    scheduler.add(writer)
    scheduler.schedule()
    for token in range(20, 33):  # fills the second block
        writer.append(token)
        scheduler.schedule()
    scheduler.remove(writer)
    scheduler.add(make(range(40)))
    assert scheduler.schedule().prefix_hits == {1: 16 if separate_prefill else 32}


def test_a_resumed_sequence_finds_its_own_blocks_again(make):
    scheduler = Scheduler(1, 100, 10, separate_prefill=True)
    text = make(range(20), new=20)
    scheduler.add(text)
    scheduler.schedule()
    for token in range(20, 34):
        text.append(token)
        scheduler.schedule()
    scheduler.remove(text)
    scheduler.add(text)
    step = scheduler.schedule()
    assert list(step.prefix_hits.values()) == [32]
    assert step.batch.prefill_rows == [0] and step.counts == [2]


def test_restart_discards_all_blocks(make):
    scheduler = Scheduler(2, 100, 10)
    sequence = make(range(40))
    scheduler.add(sequence)
    scheduler.schedule()
    scheduler.restart([sequence])
    assert advance(scheduler) == [(0, 40)]


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "limit"),
    [
        (10, 5, 15),
        (10, 1000, 64),  # limited by the context
        (10, None, 64),
        (63, None, 64),
    ],
)
def test_length_limit(prompt, max_tokens, limit):
    assert length_limit(prompt, max_tokens, context=64, cache_tokens=1000) == limit


def test_length_limit_by_memory_without_max_tokens():
    assert length_limit(10, None, context=64, cache_tokens=30) == 31
    assert length_limit(30, None, context=64, cache_tokens=30) == 31


def test_a_prompt_that_fills_the_context_is_refused():
    with pytest.raises(UserError, match=r"64 tokens.*max_position_embeddings, is 64"):
        length_limit(64, 1, context=64, cache_tokens=1000)


@pytest.mark.parametrize(("prompt", "max_tokens"), [(10, 22), (31, None), (31, 1), (10, 10_000)])
def test_a_request_that_can_never_fit_is_refused(prompt, max_tokens):
    with pytest.raises(UserError, match="kv_cache_memory holds 30"):
        length_limit(prompt, max_tokens, context=64, cache_tokens=30)
