"""Online softmax: attention over one split of the context, and the merge of several splits' partial results.

For one split, with scores s_j = q . k_j over the positions that a query may see,

    m = max s_j,   l = sum e^(s_j - m),   o = sum e^(s_j - m) v_j

and splits are merged in ascending order (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022):

    M = max(m, m'),   l = l e^(m - M) + l' e^(m' - M),   o = o e^(m - M) + o' e^(m' - M);      the result is o / l

A row of `acc` is o, a row of `stats` is (m, l). Tests: tests/vol3/cpu/kernels/test_attention.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.jit.jit import kernel, noinline
from nano_llama.vol3_engine.cpu.simd.intrinsics import (
    exp,
    extract_lane,
    fma,
    load,
    maximum,
    reduce_add,
    reduce_max,
    select_first,
    splat,
    store,
)

SPLIT_SIZE = 256  # positions of a split: where one begins depends on the position alone, so bits do too
LOWEST = np.float32(-1e30)  # the maximum of no scores


@kernel
def softmax_row(scores, i, visible, filled, stats):
    """e^(s - m) of the first `visible` scores of row i, zeros up to `filled`; m and l go to stats[i]."""
    noinline()
    peak = splat(LOWEST)
    for j in range(0, visible, 16):
        peak = maximum(peak, select_first(load(scores, i, j), visible - j, LOWEST))
    m = reduce_max(peak)
    sums, zero = splat(np.float32(0)), splat(np.float32(0))
    for j in range(0, visible, 16):
        weights = select_first(exp(load(scores, i, j) - splat(m)), visible - j, np.float32(0))
        sums = sums + weights
        store(scores, i, j, weights)
    for j in range((visible + 15) // 16 * 16, filled, 16):
        store(scores, i, j, zero)
    stats[i, 0], stats[i, 1] = m, reduce_add(sums)


@kernel
def init_partial(acc, stats, i):
    """Row i before any split is merged."""
    for k in range(0, acc.shape[1], 16):
        store(acc, i, k, splat(np.float32(0)))
    stats[i, 0], stats[i, 1] = LOWEST, np.float32(0)


@kernel
def merge_partial(acc, stats, i, partials, partial_stats, j):
    """Merge one more split, row j of `partials`, into row i of `acc`."""
    m = max(stats[i, 0], partial_stats[j, 0])
    old, new = exp(splat(stats[i, 0] - m)), exp(splat(partial_stats[j, 0] - m))
    stats[i, 0], stats[i, 1] = m, extract_lane(fma(splat(partial_stats[j, 1]), new, splat(stats[i, 1]) * old), 0)
    for k in range(0, acc.shape[1], 16):
        store(acc, i, k, fma(load(partials, j, k), new, load(acc, i, k) * old))


@kernel
def store_head(acc, stats, i, out, n, column, head_dim):
    """out[n, column : column + K] = o / l. The last vector is written one by one: the next head begins inside it."""
    whole = head_dim - head_dim % 16
    for k in range(0, whole, 16):
        store(out, n, column + k, load(acc, i, k) / splat(stats[i, 1]))
    for k in range(whole, head_dim):
        out[n, column + k] = acc[i, k] / stats[i, 1]
