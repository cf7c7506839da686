"""Model: all packed weights in one array, and the table that says where each matrix begins.

Tests: tests/vol3/cpu/test_runner.py.
"""

from typing import NamedTuple

import numpy as np

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.pack import Matrix

Q, K, V, O, GATE_UP, DOWN = range(6)  # matrices of a layer
EMBED, HEAD = range(2)  # and outside the layers
KIND, ROWS, COLUMNS, START, END = range(5)  # columns of a matrix's entry: START and END are bytes of `data`
QKV_A, O_A, GATE_UP_A, DOWN_A = range(4)  # an adapter's A's in a layer: those that read the same x are stacked
LOW, STEP, RESCALING = 5, 6, 7  # columns of an adapter's B after those of a matrix's entry


class Adapters(NamedTuple):
    """All adapters' low-rank updates (lora.py). Layer L stands for the head: its A is the first there, and its B."""

    data: np.ndarray  # (bytes,) uint8: packed matrices, as below
    rescalings: np.ndarray  # (..,) float32: of each B's rows, padding included
    A: np.ndarray  # (adapters,L+1,4,5) int64: entries of matrices; one without rows: none
    B: np.ndarray  # (adapters,L+1,6,8) int64: beside each matrix of the layer. Block b reads the columns of `low` from
    # LOW + b % 2 * STEP on, since blocks of gate and up alternate; its rescaling is at RESCALING + 16 b


class Model(NamedTuple):
    """Weights and sizes."""

    data: np.ndarray  # (bytes,) uint8: packed matrices, each aligned to 64 bytes
    layers: np.ndarray  # (L,6,5) int64: the entries of each layer's matrices
    ends: np.ndarray  # (2,5) int64: the entries of embedding and head
    norms: np.ndarray  # (2L+1,C) float32: attention and MLP norm of each layer, and the last
    hidden_size: int  # D
    heads: int  # H
    kv_heads: int  # G
    head_dim: int  # K
    eps: np.float32
    decode_form: int  # the forms of activations that matrices read for decode rows (activations.py),
    prefill_form: int  # and for prefill rows
    adapters: Adapters


@kernel
def matrix_at(data, entry):
    """The matrix that an entry describes."""
    return Matrix(entry[KIND], entry[ROWS], entry[COLUMNS], data[entry[START] : entry[END]])


@kernel
def slice_blocks(w, first, count):
    """`count` blocks of 16 rows of a matrix, from block `first` on, as a matrix."""
    size = len(w.data) // ((w.rows + 15) // 16)
    return Matrix(w.kind, 16 * count, w.columns, w.data[first * size : (first + count) * size])


@kernel
def row_form(model, n, decode_rows):
    """The forms in which row n is needed."""
    return model.decode_form if n < decode_rows else model.prefill_form
