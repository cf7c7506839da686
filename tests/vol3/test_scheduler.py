"""StaticScheduler: every sequence in one batch, within both bounds; what can never run is refused at once."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nano_llama.core.errors import UserError
from nano_llama.vol3_engine.scheduler import StaticScheduler, cache_length


def fake(prompt: int, new: int):
    return SimpleNamespace(prompt_ids=[0] * prompt, max_new_tokens=new)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), max_size=30),
    st.integers(1, 8),
    st.integers(80, 400),
)
def test_batches_hold_everyone_once_within_the_bounds(shapes, max_num_seqs, cache_tokens):
    scheduler = StaticScheduler(max_num_seqs, cache_tokens)
    sequences = [fake(*shape) for shape in shapes]
    batches = list(scheduler.batches(sequences))
    assert sorted(map(id, sequences)) == sorted(id(s) for batch in batches for s in batch)
    for batch in batches:
        assert 1 <= len(batch) <= max_num_seqs
        assert len(batch) * cache_length(batch) <= cache_tokens


def test_cache_length_is_the_longest_prompt_and_the_longest_continuation():
    assert cache_length([fake(2, 10), fake(7, 3)]) == 7 + 10 - 1  # the last token is never fed back


def test_as_few_batches_as_the_count_allows():
    batches = list(StaticScheduler(4, 10_000).batches([fake(5, 5) for _ in range(9)]))
    assert [len(batch) for batch in batches] == [4, 4, 1]


def test_similar_lengths_go_together_and_equals_keep_their_order():
    sequences = [fake(9, 1), fake(2, 1), fake(9, 1), fake(2, 1)]
    first, second = StaticScheduler(2, 1000).batches(sequences)
    assert first == [sequences[1], sequences[3]] and second == [sequences[0], sequences[2]]


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "limit"),
    [
        (10, 5, 15),
        (10, 1000, 64),  # the context ends it
        (10, None, 64),
        (63, None, 64),
    ],
)
def test_length_limit(prompt, max_tokens, limit):
    assert StaticScheduler(1, 1000).length_limit(prompt, max_tokens, context=64) == limit


def test_without_max_tokens_the_memory_may_end_it():
    assert StaticScheduler(1, cache_tokens=30).length_limit(10, None, context=64) == 31
    assert StaticScheduler(1, cache_tokens=30).length_limit(30, None, context=64) == 31


def test_a_prompt_that_fills_the_context_is_refused_by_name():
    with pytest.raises(UserError, match=r"64 tokens.*max_position_embeddings, is 64"):
        StaticScheduler(1, 1000).length_limit(64, 1, context=64)


@pytest.mark.parametrize(("prompt", "max_tokens"), [(10, 22), (31, None), (31, 1), (10, 10_000)])
def test_a_request_that_can_never_fit_is_refused_by_name(prompt, max_tokens):
    scheduler = StaticScheduler(1, cache_tokens=30)
    if (prompt, max_tokens) == (31, 1):
        assert prompt + max_tokens - 1 > 30
    with pytest.raises(UserError, match="kv_cache_memory holds 30"):
        scheduler.length_limit(prompt, max_tokens, context=64)


def test_a_request_that_just_fits_runs_alone():
    scheduler = StaticScheduler(8, cache_tokens=30)
    assert scheduler.length_limit(10, 21, context=64) == 31
    assert [len(b) for b in scheduler.batches([fake(10, 21), fake(10, 21)])] == [1, 1]
