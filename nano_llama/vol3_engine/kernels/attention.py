"""Attention over the paged cache: four query vectors against the positions before them, a part of 256 at a time.

    s_t = q . k_t,   m = max s,   p_t = e^(s_t - m),   l = sum p_t,   o = sum p_t v_t              within a part
    two parts (m, l, o), (m', l', o') make one with  M = max(m, m'):  l e^(m - M) + l' e^(m' - M),  likewise o
    the answer is o / l                          Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022

Where a part begins depends on the position alone, sums run in ascending order, and parts are merged in ascending order:
so a query's bits do not depend on what else is computed, in which chunk, or by which thread.
The four queries share a key/value head: rows of a prompt, or the heads of a group for one new token.
Not here: who computes which part (step.py), the cache's forms (rope.py). Tests: tests/vol3/kernels/test_attention.py.
"""

import numpy as np
from numba import njit

from nano_llama.vol3_engine.kernels.dot_product import four
from nano_llama.vol3_engine.kernels.float_product import fmas
from nano_llama.vol3_engine.kernels.rope import BLOCK
from nano_llama.vol3_engine.kernels.simd import (
    even_floats,
    exp,
    first_lanes,
    fma,
    lane,
    largest,
    load,
    load_i32,
    load_int8,
    maximum,
    odd_floats,
    splat,
    store,
    total,
)

PART = 256  # positions
QUERIES = 4
NEVER = np.float32(-1e30)
LARGEST, WEIGHT = 0, 1  # where m and l stand behind a record's o


def attention_plain(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """q (K,) already over sqrt(K), k and v (T,K) -> (K,): the plain twin, in float64."""
    s = k.astype(np.float64) @ q
    p = np.exp(s - s.max())
    return (p / p.sum()) @ v


@njit
def four_of_queries(q, k):
    return splat(q[0, k]), splat(q[1, k]), splat(q[2, k]), splat(q[3, k])


@njit
def two_blocks_of_scores(q, keys, kv_scales, layer, one, other, g, width, scores, column):
    """scores[j, column : column + 32] = q_j . k of two blocks; j = 0 ... 3, one chain of additions for each lane."""
    a = b = four(splat(np.float32(0)))
    if keys.itemsize == 2:
        for k in range(0, width, 2):
            x, y = load_i32(keys, layer, one, g, BLOCK * k), load_i32(keys, layer, other, g, BLOCK * k)
            values = four_of_queries(q, k)
            a, b = fmas(a, even_floats(x), values), fmas(b, even_floats(y), values)
            values = four_of_queries(q, k + 1)
            a, b = fmas(a, odd_floats(x), values), fmas(b, odd_floats(y), values)
    else:
        for k in range(width):
            if keys.itemsize == 4:
                x, y = load(keys, layer, one, g, BLOCK * k), load(keys, layer, other, g, BLOCK * k)
            else:
                x, y = load_int8(keys, layer, one, g, BLOCK * k), load_int8(keys, layer, other, g, BLOCK * k)
            values = four_of_queries(q, k)
            a, b = fmas(a, x, values), fmas(b, y, values)
    if keys.itemsize == 1:
        x, y = load(kv_scales, layer, one, g, 0), load(kv_scales, layer, other, g, 0)
        a, b = (a[0] * x, a[1] * x, a[2] * x, a[3] * x), (b[0] * y, b[1] * y, b[2] * y, b[3] * y)
    for j in range(QUERIES):
        store(scores, j, column, a[j])
        store(scores, j, column + BLOCK, b[j])


@njit
def weigh(scores, j, blocks, seen):
    """Scores of query j become p, of which `seen` positions count; returns m and l."""
    peak = splat(NEVER)
    for b in range(blocks):
        peak = maximum(peak, first_lanes(load(scores, j, BLOCK * b), seen - BLOCK * b, NEVER))
    m = largest(peak)
    sums = splat(np.float32(0))
    for b in range(blocks):
        p = exp(load(scores, j, BLOCK * b) - splat(m))
        p = first_lanes(p, seen - BLOCK * b, np.float32(0))
        sums = sums + p
        store(scores, j, BLOCK * b, p)
    return m, total(sums)


@njit
def sum_of_values(scores, values, kv_scales, layer, table, g, first_block, blocks, last, width, k, records):
    """records[j, k : k + 32] = sum over positions of p_t v_t, for 32 dimensions: eight chains."""
    a = b = four(splat(np.float32(0)))
    for block in range(blocks):
        page, column = table[first_block + block], BLOCK * block
        seen = min(BLOCK, last - column)
        if values.itemsize == 2:
            for t in range(0, seen, 2):
                at = 2 * width * (t // 2) + 2 * k
                x, y = load_i32(values, layer, page, g, at), load_i32(values, layer, page, g, at + 32)
                p = four_of_queries(scores, column + t)
                a, b = fmas(a, even_floats(x), p), fmas(b, even_floats(y), p)
                if t + 1 < seen:
                    p = four_of_queries(scores, column + t + 1)
                    a, b = fmas(a, odd_floats(x), p), fmas(b, odd_floats(y), p)
        elif values.itemsize == 4:
            for t in range(seen):
                x, y = load(values, layer, page, g, width * t + k), load(values, layer, page, g, width * t + k + 16)
                p = four_of_queries(scores, column + t)
                a, b = fmas(a, x, p), fmas(b, y, p)
        else:
            for t in range(seen):
                scale = splat(kv_scales[layer, page, g, BLOCK + t])
                x = load_int8(values, layer, page, g, width * t + k) * scale
                y = load_int8(values, layer, page, g, width * t + k + 16) * scale
                p = four_of_queries(scores, column + t)
                a, b = fmas(a, x, p), fmas(b, y, p)
    for j in range(QUERIES):
        store(records, j, k, a[j])
        store(records, j, k + 16, b[j])


@njit
def attend(q, seen, keys, values, kv_scales, layer, table, g, part, scores, records):
    """Part `part` of the context for four queries -> records (4, K' + 16): o, and behind it m and l.

    q (4, K'); seen (4,): how many positions each query may look at, 0 for a place without a query; table: the
    sequence's blocks; scores (4, PART): room. A query that sees nothing of this part has l = 0.
    """
    width, first = q.shape[1], part * PART
    last = min(max(max(seen[0], seen[1]), max(seen[2], seen[3])) - first, PART)
    blocks = (last + BLOCK - 1) // BLOCK
    for b in range(0, blocks, 2):
        one = table[first // BLOCK + b]
        other = table[first // BLOCK + b + 1] if b + 1 < blocks else one
        two_blocks_of_scores(q, keys, kv_scales, layer, one, other, g, width, scores, BLOCK * b)
    for j in range(QUERIES):
        m, l = weigh(scores, j, blocks, min(seen[j] - first, last))
        records[j, width + LARGEST], records[j, width + WEIGHT] = m, l
    for k in range(0, width, 32):
        sum_of_values(scores, values, kv_scales, layer, table, g, first // BLOCK, blocks, last, width, k, records)


@njit
def merge(into, i, records, j, width, is_first):
    """The part in records[j] joins the parts before it in into[i]; the first part is taken as it is."""
    if is_first:
        for k in range(width + 2):
            into[i, k] = records[j, k]
        return
    if records[j, width + WEIGHT] == 0:
        return
    m, n = into[i, width + LARGEST], records[j, width + LARGEST]
    peak = max(m, n)
    old, new = exp(splat(m - peak)), exp(splat(n - peak))
    for k in range(0, width, 16):
        store(into, i, k, fma(load(into, i, k), old, load(records, j, k) * new))
    into[i, width + WEIGHT] = into[i, width + WEIGHT] * lane(old, 0) + records[j, width + WEIGHT] * lane(new, 0)
    into[i, width + LARGEST] = peak


@njit
def finish(into, i, width, out, n, column, size):
    """out[n, column : column + size] = o / l."""
    inverse = np.float32(1) / into[i, width + WEIGHT]
    for k in range(size):
        out[n, column + k] = into[i, k] * inverse
