"""Shards and micro-batches cover the batch in order; threads run, and their errors come through."""

import threading

import numpy as np
import pytest

from nano_llama.vol1_numpy.data_parallel import add_grads, micro_batches, rows_of, run_shards, shards


@pytest.mark.parametrize("num_rows", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("num_shards", [1, 2, 3, 16])
def test_shards_cover_all_rows_evenly_and_in_order(num_rows, num_shards):
    parts = shards(num_rows, num_shards)
    assert [i for part in parts for i in range(num_rows)[part]] == list(range(num_rows))
    sizes = [part.stop - part.start for part in parts]
    assert len(parts) == min(num_shards, num_rows) and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("size", "expected"), [(None, [5]), (2, [2, 2, 1]), (9, [5])])
def test_micro_batches_cover_a_shard(size, expected):
    parts = list(micro_batches(slice(3, 8), size))
    assert [part.stop - part.start for part in parts] == expected
    assert parts[0].start == 3 and parts[-1].stop == 8


def test_each_shard_has_its_thread_and_results_keep_their_order():
    barrier = threading.Barrier(3, timeout=20)  # passes only if all three run at once

    def work(part):
        barrier.wait()
        return part.start

    assert run_shards(work, shards(9, 3)) == [0, 3, 6]


def test_an_error_in_a_thread_is_raised_here():
    def work(part):
        if part.start:
            raise ValueError("shard 2")
        return 1

    with pytest.raises(ValueError, match="shard 2"):
        run_shards(work, shards(2, 2))


def test_rows_of_a_mask_follow_the_batch_only_where_it_has_rows():
    per_row, shared = np.ones((4, 1, 2, 2), bool), np.ones((2, 2), bool)
    assert rows_of(per_row, slice(1, 3)).shape == (2, 1, 2, 2)
    assert rows_of(per_row[:1], slice(1, 3)).shape == (1, 1, 2, 2)
    assert rows_of(shared, slice(1, 3)) is shared
    assert rows_of(None, slice(0, 1)) is None


def test_grads_add_up_by_name():
    total = add_grads({}, {"a": np.ones(2)})
    assert add_grads(total, {"a": np.full(2, 3.0)})["a"].tolist() == [4, 4]
