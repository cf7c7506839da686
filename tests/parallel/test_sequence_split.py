"""The division of a sequence over ranks: everything once, equal work, and what `visible` says against the positions."""

import pytest
import torch

from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.parallel.sequence_split import in_order, in_parts, local_positions, split_batch, visible

SIZES = [1, 2, 3, 4, 8]


@pytest.mark.parametrize("size", SIZES)
def test_ranks_share_all_positions_and_the_work_evenly(size):
    T = 6 * size
    parts = [local_positions(T, rank, size) for rank in range(size)]
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(T))
    assert all(torch.equal(part, part.sort().values) for part in parts)  # so that causal is causal within a rank
    assert len({int((part + 1).sum()) for part in parts}) == 1  # a query at position p sees p + 1 keys


@pytest.mark.parametrize("size", SIZES[1:])
def test_what_is_visible_follows_from_the_positions(size):
    n = 3
    parts = [local_positions(2 * n * size, rank, size) for rank in range(size)]
    for rank in range(size):
        for source in set(range(size)) - {rank}:
            seen = torch.zeros(2 * n, 2 * n, dtype=torch.bool)
            seen[visible(rank, source, n)] = True
            assert torch.equal(seen, parts[rank][:, None] >= parts[source])
            assert seen.sum() == 2 * n * n  # half of all pairs at every hop


@pytest.mark.parametrize("size", SIZES)
def test_a_batch_is_split_and_put_together(size):
    T = 16 if size != 3 else 12
    tokens = torch.arange(2 * T).view(2, T)
    parts = [split_batch(tokens, tokens + 1, rank, size) for rank in range(size)]
    for here, targets, positions in parts:
        assert torch.equal(here[0], positions)
        assert torch.equal(targets, here + 1)
    together = torch.cat([here for here, _, _ in parts], dim=1)
    assert torch.equal(in_order(together, 1, size), tokens)
    assert torch.equal(in_parts(tokens, 1, size), together)


def test_a_length_that_is_not_divided_is_filled_with_targets_that_do_not_count():
    tokens = torch.arange(1, 11)[None]  # 10 tokens over 4 ranks of 2 chunks: 16
    parts = [split_batch(tokens, tokens, rank, 4) for rank in range(4)]
    assert [here.shape for here, _, _ in parts] == [(1, 4)] * 4
    counted = torch.cat([targets[targets != IGNORE_INDEX] for _, targets, _ in parts])
    assert torch.equal(counted.sort().values, tokens[0])
