"""Every token once an epoch, any position at once, and validation that counts every target."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.batches import ArrayTokens, Batches, shuffled, validation_batches, windows


def counting(n: int) -> ArrayTokens:
    return ArrayTokens(np.arange(n, dtype=np.uint16))


def test_targets_are_the_tokens_one_further():
    batches = Batches(counting(1000), 8, 16, seed=3)
    for _ in range(20):
        tokens, targets = batches.next()
        assert tokens.shape == targets.shape == (8, 16)
        assert tokens.dtype == targets.dtype == np.int64
        assert np.array_equal(targets, tokens + 1)
        assert np.array_equal(tokens, tokens[:, :1] + np.arange(16))
        assert tokens.flags.c_contiguous and targets.flags.c_contiguous


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 600), st.integers(1, 40), st.integers(0, 2**40))
def test_an_epoch_shows_each_target_at_most_once_and_misses_few(num_tokens, context, seed):
    if num_tokens < context + 1:
        return
    batches = Batches(counting(num_tokens), 1, context, seed)
    for _ in range(3):
        seen = np.concatenate([batches.next()[1][0] for _ in range(batches.rows_per_epoch)])
        assert len(set(seen.tolist())) == len(seen)
        assert num_tokens - len(seen) < 2 * context + 1
        assert seen.min() >= 1 and seen.max() <= num_tokens - 1
    assert batches.epoch == 3.0


def test_epochs_differ_in_order_and_in_where_they_cut():
    batches = Batches(counting(5000), 1, 10, seed=0)
    epochs = [[int(batches.next()[0][0, 0]) for _ in range(batches.rows_per_epoch)] for _ in range(20)]
    assert len({tuple(epoch) for epoch in epochs}) == 20
    offsets = [min(epoch) for epoch in epochs]
    assert max(offsets) < 20 and len(set(offsets)) > 5


def test_every_token_is_met_in_the_long_run():
    batches = Batches(counting(97), 4, 10, seed=1)
    seen = np.concatenate([batches.next()[1].ravel() for _ in range(200)])
    assert set(seen.tolist()) == set(range(1, 97))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(0, 3000), st.integers(0, 99))
def test_batches_can_start_at_any_position(batch_size, position, seed):
    one, other = (Batches(counting(700), batch_size, 7, seed) for _ in range(2))
    one.seek(position)
    first = [one.next() for _ in range(3)]
    assert one.position == position + 3
    for i in reversed(range(3)):
        assert all(np.array_equal(a, b) for a, b in zip(first[i], other.at(position + i), strict=True))


def test_the_batch_size_only_groups_the_same_stream():
    rows = {
        size: np.concatenate(
            [tokens for tokens, _ in itertools.islice(Batches(counting(900), size, 8, 5), 6000 // size)]
        )
        for size in (1, 5, 60)
    }
    assert np.array_equal(rows[1], rows[5]) and np.array_equal(rows[1], rows[60])


def test_the_stream_is_the_same_on_every_machine():
    """Written down once: a change of these numbers changes what a resumed run sees."""
    assert Batches(counting(10_000), 6, 32, seed=42).starts(1000).tolist() == STARTS


STARTS = [9313, 7361, 6081, 6113, 513, 1473]


def test_seeds_and_epochs_shuffle_independently():
    orders = {
        (seed, epoch): tuple(shuffled(np.arange(50), 50, seed, np.full(50, epoch)).tolist())
        for seed in range(30)
        for epoch in range(30)
    }
    assert len(set(orders.values())) == 900


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 100, 255, 256, 257, 5000])
def test_the_shuffle_is_a_permutation(count):
    result = shuffled(np.arange(count), count, 7, np.full(count, 3))
    assert sorted(result.tolist()) == list(range(count))


def test_the_shuffle_is_even():
    """Each of 6 windows is as likely in each place (chi-square, 25 degrees of freedom: 52.6 is the 0.1% point)."""
    # The counts of a permutation's places vary by (1 - 1/6) of what independent draws would: hence the 5/6 below.
    rounds = 12_000
    counts = np.zeros((6, 6))
    orders = shuffled(np.tile(np.arange(6), rounds), 6, 11, np.repeat(np.arange(rounds), 6)).reshape(rounds, 6)
    for place in range(6):
        counts[place] = np.bincount(orders[:, place], minlength=6)
    assert 5 / 6 * ((counts - rounds / 6) ** 2 / (rounds / 6)).sum() < 52.6
    assert len({tuple(order) for order in orders.tolist()}) == 720


def test_neighbours_do_not_stay_neighbours():
    order = shuffled(np.arange(10_000), 10_000, 0, np.zeros(10_000, int))
    steps = collections.Counter(np.diff(order).tolist())
    assert steps[1] < 10 and steps.most_common(1)[0][1] < 10
    assert abs(np.corrcoef(np.arange(10_000), order)[0, 1]) < 0.04


def test_a_split_of_one_window_and_one_too_short():
    tokens, targets = Batches(counting(9), 2, 8, 0).next()
    assert tokens.tolist() == [list(range(8))] * 2 and targets.tolist() == [list(range(1, 9))] * 2
    with pytest.raises(UserError, match="8 tokens to train on; a context of 8 needs 9 or more"):
        Batches(counting(8), 2, 8, 0)


@pytest.mark.parametrize(("batch_size", "context"), [(0, 8), (2, 0), (-1, 8)])
def test_sizes_that_cannot_be(batch_size, context):
    with pytest.raises(UserError, match="at least 1"):
        Batches(counting(100), batch_size, context)
    with pytest.raises(UserError, match="at least 1"):
        next(validation_batches(counting(100), context, batch_size))


def test_a_position_before_the_first():
    with pytest.raises(UserError, match="-1"):
        Batches(counting(100), 1, 8).seek(-1)


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 300), st.integers(1, 50), st.integers(1, 12))
def test_validation_counts_every_target_once_in_order(num_tokens, context, batch_size):
    counted = []
    shapes = set()
    for tokens, targets in validation_batches(counting(num_tokens), context, batch_size):
        shapes.add(tokens.shape)
        assert targets.shape == tokens.shape
        kept = targets != IGNORE_INDEX
        assert np.array_equal(tokens[kept] + 1, targets[kept])
        counted += targets[kept].tolist()
    assert counted == list(range(1, num_tokens))
    assert len(shapes) == 1  # one shape: nothing is compiled twice
    assert next(iter(shapes))[1] == context


def test_validation_windows_do_not_overlap():
    assert list(windows(counting(21), 8)) == [(0, 8), (8, 8), (16, 4)]
    assert list(windows(counting(17), 8)) == [(0, 8), (8, 8)]
    with pytest.raises(UserError, match="at least 2"):
        next(validation_batches(counting(1), 8, 2))
