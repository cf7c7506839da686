"""Packed documents: the mask, or the numbers, and the positions that keep attention within each document. And the mask
of a sliding window.

A window of T tokens may hold the end of one document, several whole ones and the beginning of another. With this mask
and these positions the model computes for each what it would compute for that document alone.
Not here: which token belongs to which document, and the targets between two (data/batches.py).
Tests: tests/vol2/test_packing.py.
"""

import torch
from torch import Tensor


def within_documents(documents: Tensor) -> tuple[Tensor, Tensor]:
    """documents (B,T): the number of each token's document -> positions (B,T) from 0 in each, mask (B,1,T,T).

    mask[b,0,i,j]: token i may attend to token j, which is in the same document and not after it: block-diagonal.
    """
    columns = torch.arange(documents.shape[1], device=documents.device)  # (T,)
    same = documents[:, :, None] == documents[:, None, :]  # (B,T,T)
    return positions_within(documents), (same & (columns[:, None] >= columns)).unsqueeze(1)


def by_number(documents: Tensor) -> tuple[Tensor, Tensor]:
    """The same for attention that reads the numbers themselves (kernels/flash_attention.py): no mask of T x T."""
    return positions_within(documents), documents


def positions_within(documents: Tensor) -> Tensor:  # (B,T) -> (B,T)
    columns = torch.arange(documents.shape[1], device=documents.device)  # (T,)
    begins = torch.ones_like(documents, dtype=torch.bool)  # (B,T)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    starts = torch.where(begins, columns, 0).cummax(dim=1).values  # (B,T): where each token's document begins
    return columns - starts


def within_window(mask: Tensor | None, window: int, T: int, past: int, device: torch.device) -> Tensor | None:
    """The mask, to (B,1,T,S) with S = past + T, in which a token also attends to the last `window` columns at most, its
    own among them. None: the causal one, which it stays where the window is long enough for all.
    """
    if window >= past + T:
        return mask
    rows = torch.arange(past, past + T, device=device)[:, None]  # (T,1)
    columns = torch.arange(past + T, device=device)  # (S,)
    near = columns > rows - window  # (T,S)
    return near & (columns <= rows) if mask is None else near & mask
