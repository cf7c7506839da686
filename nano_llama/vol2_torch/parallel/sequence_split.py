"""How context parallelism divides a sequence: each rank one chunk from its head and one from its tail.

A causal query sees the keys up to its own, so that work grows along the sequence. In even slices the last of w ranks
would do 2w - 1 times the first one's. So the sequence is cut into 2w chunks, and rank r takes chunk r and chunk
2w - 1 - r ("zigzag"):

    chunk  0  1  2  3  4  5  6  7      of each rank's two queries' chunks, one sees few keys and one sees many:
    rank   0  1  2  3  3  2  1  0      (r + 1) + (2w - r) = 2w + 1 chunks in sum, whatever r is

In the ring (cp.py) ranks are equal at every hop too: `visible` has half of all pairs for each.
Tests: tests/parallel/test_sequence_split.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nano_llama.core.loss import IGNORE_INDEX


def padded_length(T: int, size: int) -> int:
    """The shortest length, not below T, that is cut into 2 chunks for each of `size` ranks."""
    return -(-T // (2 * size)) * 2 * size


def local_positions(T: int, rank: int, size: int) -> Tensor:
    """Where this rank's tokens stand in a sequence of T, which 2 size divides.  -> (T/size,) of integers, ascending"""
    n = T // (2 * size)
    head, tail = rank * n, (2 * size - 1 - rank) * n
    return torch.cat((torch.arange(head, head + n), torch.arange(tail, tail + n)))


def split_batch(tokens: Tensor, targets: Tensor, rank: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """tokens, targets (B,T) -> this rank's tokens and targets (B,T'/size), and their positions (T'/size,).

    Where 2 size does not divide T, T' is longer: what is appended counts in no loss, and no token before it sees it.
    """
    T = padded_length(tokens.shape[1], size)
    extra = T - tokens.shape[1]
    positions = local_positions(T, rank, size).to(tokens.device)
    tokens, targets = F.pad(tokens, (0, extra)), F.pad(targets, (0, extra), value=IGNORE_INDEX)  # (B,T')
    return tokens[:, positions], targets[:, positions], positions


def in_order(parts: Tensor, dim: int, size: int) -> Tensor:
    """The ranks' parts one after another along `dim` -> that dimension in the sequence's own order."""
    ranks_order = torch.cat([local_positions(parts.shape[dim], rank, size) for rank in range(size)])
    return parts.index_select(dim, ranks_order.argsort().to(parts.device))


def in_parts(sequence: Tensor, dim: int, size: int) -> Tensor:
    """The way back from `in_order`."""
    ranks_order = torch.cat([local_positions(sequence.shape[dim], rank, size) for rank in range(size)])
    return sequence.index_select(dim, ranks_order.to(sequence.device))


def visible(rank: int, source: int, n: int) -> tuple[slice, slice]:
    """Of the 2n queries of `rank` and the 2n keys of another rank, those between which everything is seen.

    A key's chunk is seen by a query's chunk after it. From a rank before, the head is seen by both chunks and the tail
    by none; from a rank after, head and tail are seen by the tail alone. Between a rank and itself attention is causal.
    """
    assert rank != source, "its own keys are seen causally"
    every, first, second = slice(0, 2 * n), slice(0, n), slice(n, 2 * n)
    return (every, first) if source < rank else (second, every)
