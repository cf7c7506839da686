"""Packing loses nothing, and batches show each sequence once an epoch, with the targets it had alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.packing import pack
from nano_llama.data.sft.batches import ExampleBatches
from nano_llama.data.sft.sequences import TokenSequence


def sequences(lengths, seed=0):
    """Sequences with that many tokens (and an id more); which ids are learned is drawn."""
    rng = np.random.default_rng(seed)
    drawn = [(rng.integers(1, 99, n + 1).astype(np.int32), rng.random(n + 1) < 0.5) for n in lengths]
    return [TokenSequence(f"line {i}", ids, learned) for i, (ids, learned) in enumerate(drawn)]


def shown(batch, packed):
    """The sequences of a batch as lists of (token, target), by walking over it."""
    found = []
    for row in range(len(batch[0])):
        tokens, targets = batch[0][row].tolist(), batch[1][row].tolist()
        documents = batch[2][row].tolist() if packed else [0] * len(tokens)
        previous = None
        for token, target, document in zip(tokens, targets, documents, strict=True):
            if packed and document < 0:
                assert (token, target) == (0, IGNORE_INDEX)
            elif document != previous:
                found.append([(token, target)])
            else:
                found[-1].append((token, target))
            previous = document
    return [comparable(one, packed) for one in found]


def comparable(pairs, packed):
    """Unpacked, up to the last target that counts: what follows may be padding, which nothing depends on."""
    last = max((place for place, (_, target) in enumerate(pairs) if target != IGNORE_INDEX), default=-1)
    return pairs if packed else pairs[: last + 1]


def expected(sequence):
    targets = [int(i) if flag else IGNORE_INDEX for i, flag in zip(sequence.ids, sequence.learned, strict=True)]
    return list(zip(sequence.ids[:-1].tolist(), targets[1:], strict=True))


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60), context=st.integers(50, 64))
def test_each_is_packed_once_and_no_two_rows_would_fit_into_one(lengths, context):
    rows = pack(lengths, context)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    filled = sorted(sum(lengths[number] for number in row) for row in rows)
    assert filled[-1] <= context
    assert len(filled) < 2 or filled[0] + filled[1] > context


def test_best_fit():
    assert pack([5, 3, 4, 7, 1], 10) == [[3, 1], [0, 2, 4]]


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), batch_size=st.integers(1, 5), packed=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_an_epoch_shows_each_sequence_once(lengths, batch_size, packed, seed):
    given_ = sequences(lengths, seed)
    wanted = sorted(comparable(expected(one), packed) for one in given_)
    batches = ExampleBatches(given_, batch_size, 40, seed, packed)
    assert sorted(one for batch in batches.in_order() for one in shown(batch, packed)) == wanted
    single = ExampleBatches(given_, 1, 40, seed, packed)
    assert sorted(one for _ in single.rows for one in shown(single.next(), packed)) == wanted
    assert single.epoch == 1.0


def test_position_and_seed_fix_a_batch():
    given_ = sequences([3, 9, 30, 12, 7, 25, 31, 2, 18])
    one, other = ExampleBatches(given_, 2, 32, 5), ExampleBatches(given_, 2, 32, 5)
    drawn = [one.next() for _ in range(7)]
    other.seek(4)
    for batch in drawn[4:]:
        for a, b in zip(batch, other.next(), strict=True):
            np.testing.assert_array_equal(a, b)
    orders = {tuple(ExampleBatches(given_, 1, 32, seed).at(p)[2][0, 0] for p in range(5)) for seed in range(20)}
    assert len(orders) > 10, "seeds differ"


def test_a_batch_is_as_wide_as_its_rows_need():
    assert ExampleBatches(sequences([3, 30]), 2, 1000, packed=False).at(0)[0].shape == (2, 32)
    assert ExampleBatches(sequences([33]), 1, 1000).at(0)[0].shape == (1, 64)
    assert ExampleBatches(sequences([33]), 1, 40).at(0)[0].shape == (1, 40)


def test_wrong_arguments():
    for wrong, cause in (
        (lambda: ExampleBatches([], 1, 8), "no sequences"),
        (lambda: ExampleBatches(sequences([9]), 1, 8), "line 0: 9 tokens in a context of 8"),
        (lambda: ExampleBatches(sequences([9]), 0, 8), "batch size 0"),
        (lambda: ExampleBatches(sequences([8]), 1, 8).seek(-1), "position -1"),
    ):
        with pytest.raises(UserError, match=cause):
            wrong()
