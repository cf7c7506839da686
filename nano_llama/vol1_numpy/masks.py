"""Which positions may attend to which: boolean masks that broadcast to (B,1,T,S), True may attend. Combine them with &.

    causal_mask(T) & window_mask(W, T) & padding_mask(present) & document_mask(documents)

Tests: tests/vol1/test_masks.py.

RoPE sees only distances between positions, so neither padding on the left nor a document that begins in the middle of
a row needs positions of its own: what it may attend to lies at the same distances.
"""

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy.ops.array import Array


def causal_mask(num_queries: int, num_past: int = 0) -> Array:
    """A position attends to itself and to those before. -> (T, num_past + T): the queries are the last T positions"""
    return np.tri(num_queries, num_past + num_queries, num_past, dtype=bool)


def window_mask(window: int, num_queries: int, num_past: int = 0) -> Array:
    """Nobody attends further back than to the last `window` positions, itself among them. -> (T, num_past + T)"""
    return ~np.tri(num_queries, num_past + num_queries, num_past - window, dtype=bool)


def padding_mask(present: Array) -> Array:
    """Nobody attends to padding.    present: (B,S), True or 1 for a real token, False or 0 for padding -> (B,1,1,S)"""
    present = np.asarray(present)
    if present.ndim != 2 or not np.isin(present, (0, 1)).all():
        raise UserError(f"padding_mask: expected (B,S) of booleans, got {present.dtype} of shape {present.shape}.")
    return present.astype(bool)[:, None, None, :]


def document_mask(documents: Array) -> Array:
    """Documents packed into one row do not see each other.    documents: (B,T), numbers of documents -> (B,1,T,T)"""
    documents = np.asarray(documents)
    if documents.ndim != 2:
        raise UserError(f"document_mask: expected (B,T), got shape {documents.shape}.")
    return (documents[:, :, None] == documents[:, None, :])[:, None]
