"""Batches made ahead are the batches of the plain stream; a worker that ends is an error of ours."""

import os
import signal

import numpy as np
import pytest

from nano_llama.core.errors import EnvironmentFault
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.batches import ArrayTokens, Batches
from nano_llama.data.prefetch import Prefetcher


def make(document_mask=False):
    return Batches(ArrayTokens(np.arange(500) % 97, (0, 13, 200)), 3, 8, seed=5, document_mask=document_mask)


def equal(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("workers, document_mask", [(1, False), (2, True)])
def test_the_same_batches_from_any_position_whatever_the_workers(workers, document_mask):
    plain, batches = make(document_mask), make(document_mask)
    batches.seek(17)
    with Prefetcher(batches, workers) as stream:
        for position in range(17, 40):
            assert stream.position == position and equal(stream.next(), plain.at(position)), position
        stream.seek(3)
        assert equal(stream.next(), plain.at(3)) and stream.position == 4


def test_a_killed_worker_is_an_error_and_keeps_the_position():
    with Prefetcher(make(), 1) as stream:
        stream.next()
        os.kill(stream.processes.all[0].pid, signal.SIGKILL)
        with pytest.raises(EnvironmentFault, match="ended with code -9"):
            for _ in range(20):
                before = stream.position
                stream.next()
        assert stream.position == before


def test_no_worker_is_left_behind():
    with Prefetcher(make(), 2) as stream:
        stream.next()
    assert all(worker.returncode is not None for worker in stream.processes.all)


def test_with_a_document_mask_no_target_crosses_a_border():
    batches = make(document_mask=True)
    for position in range(30):
        starts = batches.starts(position)
        _, targets, documents = batches.at(position)
        for start, row, ids in zip(starts.tolist(), targets, documents, strict=True):
            places = np.arange(start, start + 8)
            last = np.isin(places, (12, 199))  # of the first and the second document
            assert np.array_equal(row == IGNORE_INDEX, last) and np.array_equal(row[~last], ((places + 1) % 97)[~last])
            assert np.array_equal(ids, (places >= 13).astype(int) + (places >= 200))
