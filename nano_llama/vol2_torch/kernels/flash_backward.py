"""Flash attention's backward on a GPU: dQ by tiles of queries, dK and dV by tiles of keys, nothing added atomically.

The derivation is that of vol1_numpy.ops.flash_attention.flash_attention_backward:

    P = 2^(scale q k^T - lse),   dV = P^T dO,   dP = dO V^T,   dS = P (dP - delta),   dQ = dS K / sqrt(K),   ...

with delta = rowsum(dO O), computed beforehand. Each tile of P is made twice, by the program that owns its queries and
by the one that owns its keys. In return every gradient is written once, by one program, whose sums always run in the
same order: the same inputs give the same bits.

`scale` has log2 e in it, as in flash_forward.py, because P is a power of two. dQ and dK are gradients of the scores
q k^T / sqrt(K) and have 1 / sqrt(K) alone. Tests: tests/vol2/kernels/test_flash_attention.py.
"""

import triton
import triton.language as tl

from nano_llama.vol2_torch.kernels.flash_forward import (
    document_range,
    load_rows,
    store_rows,
    tile_head_batch,
    visible,
    visible_keys,
)


@triton.jit
def delta_kernel(
    out, dout, delta, out_batch, out_head, out_row, dout_batch, dout_head, dout_row, H, T,
    K: tl.constexpr, WIDE: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """delta[t] = sum_k dout[t,k] out[t,k]:  out, dout (B,H,T,K) -> delta (B,H,T)."""
    tile, head, batch = tile_head_batch(T, H, BLOCK_T)
    out += batch * out_batch + head * out_head
    dout += batch * dout_batch + head * dout_head
    rows = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    o = load_rows(out, out_row, tile * BLOCK_T, T, K, BLOCK_T, BLOCK_K, True).to(WIDE)  # (BLOCK_T,BLOCK_K)
    do = load_rows(dout, dout_row, tile * BLOCK_T, T, K, BLOCK_T, BLOCK_K, True).to(WIDE)  # (BLOCK_T,BLOCK_K)
    tl.store(delta + (batch * H + head) * T + rows, tl.sum(o * do, 1), mask=rows < T)


@triton.jit
def dq_kernel(
    q, k, v, dout, lse, delta, dq, documents, key_documents,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    dout_batch, dout_head, dout_row, dq_batch, dq_head, dq_row,
    H, T, S, scale, score_scale,
    GROUP: tl.constexpr, K: tl.constexpr, CAUSAL: tl.constexpr, PACKED: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dq (B,H,T,K): one program has one tile of queries and walks over the keys, as the forward does."""
    tile, head, batch = tile_head_batch(T, H, BLOCK_T)
    begin = (tl.cdiv(T, BLOCK_T) - 1 - tile) * BLOCK_T  # the last rows see the most keys, so they begin first
    rows = begin + tl.arange(0, BLOCK_T)
    k += batch * k_batch + (head // GROUP) * k_head
    v += batch * v_batch + (head // GROUP) * v_head
    q += batch * q_batch + head * q_head
    dout += batch * dout_batch + head * dout_head
    q_tile = load_rows(q, q_row, begin, T, K, BLOCK_T, BLOCK_K, True)  # (BLOCK_T,BLOCK_K)
    do = load_rows(dout, dout_row, begin, T, K, BLOCK_T, BLOCK_K, True)  # (BLOCK_T,BLOCK_K)
    at = (batch * H + head) * T + rows
    row_lse = tl.load(lse + at, mask=rows < T, other=float("inf"))  # (BLOCK_T,)
    row_delta = tl.load(delta + at, mask=rows < T, other=0.0)  # (BLOCK_T,)
    row_documents = rows
    if PACKED:
        row_documents = tl.load(documents + batch * T + tl.minimum(rows, T - 1))  # (BLOCK_T,)
        key_documents += batch * S
    first, free, end = visible_keys(begin, row_documents, key_documents, T, S, CAUSAL, PACKED, BLOCK_T, BLOCK_S)

    acc = tl.zeros((BLOCK_T, BLOCK_K), WIDE)
    acc = add_dq(
        acc, q_tile, do, row_lse, row_delta, k, v, k_row, v_row, rows, row_documents, key_documents,
        first, free, T, S, scale, K, CAUSAL, PACKED, False, BLOCK_S, BLOCK_K,
    )  # fmt: skip
    acc = add_dq(
        acc, q_tile, do, row_lse, row_delta, k, v, k_row, v_row, rows, row_documents, key_documents,
        free, end, T, S, scale, K, CAUSAL, PACKED, True, BLOCK_S, BLOCK_K,
    )  # fmt: skip
    dq += batch * dq_batch + head * dq_head
    store_rows(dq, dq_row, begin, T, acc * score_scale, K, BLOCK_T, BLOCK_K)


@triton.jit
def add_dq(
    acc, q_tile, do, row_lse, row_delta, k, v, k_row, v_row, rows, row_documents, key_documents,
    first, end, T, S, scale, K: tl.constexpr, CAUSAL: tl.constexpr, PACKED: tl.constexpr, MASKED: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """acc + sum over the keys from `first` to `end` of dS K.    -> (BLOCK_T,BLOCK_K)"""
    for start in range(first, end, BLOCK_S):
        k_tile = load_rows(k, k_row, start, S, K, BLOCK_S, BLOCK_K, MASKED)  # (BLOCK_S,BLOCK_K)
        v_tile = load_rows(v, v_row, start, S, K, BLOCK_S, BLOCK_K, MASKED)  # (BLOCK_S,BLOCK_K)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee")  # (BLOCK_T,BLOCK_S)
        p = tl.exp2(s * scale - row_lse[:, None])
        if MASKED:
            keep = visible(rows, row_documents, start, key_documents, T, S, CAUSAL, PACKED, BLOCK_S)
            p = tl.where(keep, p, 0.0)
        dp = tl.dot(do, tl.trans(v_tile), input_precision="ieee")  # (BLOCK_T,BLOCK_S)
        ds = p * (dp - row_delta[:, None])
        acc = tl.dot(ds.to(k_tile.dtype), k_tile, acc, input_precision="ieee")
    return acc


@triton.jit
def dkdv_kernel(
    q, k, v, dout, lse, delta, dk, dv, documents, key_documents,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    dout_batch, dout_head, dout_row, dk_batch, dk_head, dk_row, dv_batch, dv_head, dv_row,
    H, T, S, scale, score_scale,
    GROUP: tl.constexpr, K: tl.constexpr, CAUSAL: tl.constexpr, PACKED: tl.constexpr, WIDE: tl.constexpr,
    EVEN: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dk, dv (B,G,S,K): one program has one tile of keys of one key/value head.

    It walks over the queries of the group's heads, one head after another, since a shared head's gradient is the sum
    of theirs. EVEN: T is a multiple of BLOCK_T.
    """
    tile, group, batch = tile_head_batch(S, H // GROUP, BLOCK_S)
    begin = tile * BLOCK_S  # the first keys are seen by the most queries, and begin first
    columns = begin + tl.arange(0, BLOCK_S)
    k += batch * k_batch + group * k_head
    v += batch * v_batch + group * v_head
    k_tile = load_rows(k, k_row, begin, S, K, BLOCK_S, BLOCK_K, True)  # (BLOCK_S,BLOCK_K)
    v_tile = load_rows(v, v_row, begin, S, K, BLOCK_S, BLOCK_K, True)  # (BLOCK_S,BLOCK_K)
    first, free, end = 0, 0, T
    if CAUSAL:  # key s is seen by queries from s - (S - T) on
        first = tl.minimum(tl.maximum(begin + T - S, 0), T) // BLOCK_T * BLOCK_T
        free = tl.cdiv(tl.minimum(tl.maximum(begin + BLOCK_S - 1 + T - S, 0), T), BLOCK_T) * BLOCK_T
    column_documents = columns
    if PACKED:
        column_documents = tl.load(key_documents + batch * S + tl.minimum(columns, S - 1))
        documents += batch * T
        first, end = document_range(column_documents, documents, first, T)
        free = end

    dk_acc = tl.zeros((BLOCK_S, BLOCK_K), WIDE)
    dv_acc = tl.zeros((BLOCK_S, BLOCK_K), WIDE)
    for member in range(GROUP):
        head = group * GROUP + member
        head_q = q + batch * q_batch + head * q_head
        head_dout = dout + batch * dout_batch + head * dout_head
        row_lse = lse + (batch * H + head) * T
        row_delta = delta + (batch * H + head) * T
        dk_acc, dv_acc = add_dkdv(
            dk_acc, dv_acc, k_tile, v_tile, head_q, head_dout, row_lse, row_delta, q_row, dout_row,
            columns, column_documents, documents, first, tl.minimum(free, end), T, S, scale,
            K, CAUSAL, PACKED, True, True, BLOCK_T, BLOCK_K,
        )  # fmt: skip
        dk_acc, dv_acc = add_dkdv(
            dk_acc, dv_acc, k_tile, v_tile, head_q, head_dout, row_lse, row_delta, q_row, dout_row,
            columns, column_documents, documents, free, end, T, S, scale,
            K, CAUSAL, PACKED, False, not EVEN, BLOCK_T, BLOCK_K,
        )  # fmt: skip
    dk += batch * dk_batch + group * dk_head
    dv += batch * dv_batch + group * dv_head
    store_rows(dk, dk_row, begin, S, dk_acc * score_scale, K, BLOCK_S, BLOCK_K)
    store_rows(dv, dv_row, begin, S, dv_acc, K, BLOCK_S, BLOCK_K)


@triton.jit
def add_dkdv(
    dk_acc, dv_acc, k_tile, v_tile, q, dout, lse, delta, q_row, dout_row,
    columns, column_documents, documents, first, end, T, S, scale,
    K: tl.constexpr, CAUSAL: tl.constexpr, PACKED: tl.constexpr, MASKED: tl.constexpr, RAGGED: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dk_acc + sum dS^T Q and dv_acc + sum P^T dO, over the queries from `first` to `end` of one head.

    The tiles are transposed, keys by queries: P^T and dS^T are then left factors, which tensor cores read from
    registers. RAGGED: the last tile may reach beyond T; its rows are zeros with lse = inf and add nothing.
    """
    for start in range(first, end, BLOCK_T):
        rows = start + tl.arange(0, BLOCK_T)
        q_tile = load_rows(q, q_row, start, T, K, BLOCK_T, BLOCK_K, RAGGED)  # (BLOCK_T,BLOCK_K)
        do = load_rows(dout, dout_row, start, T, K, BLOCK_T, BLOCK_K, RAGGED)  # (BLOCK_T,BLOCK_K)
        if RAGGED:
            row_lse = tl.load(lse + rows, mask=rows < T, other=float("inf"))  # (BLOCK_T,)
            row_delta = tl.load(delta + rows, mask=rows < T, other=0.0)  # (BLOCK_T,)
        else:
            row_lse = tl.load(lse + rows)  # (BLOCK_T,)
            row_delta = tl.load(delta + rows)  # (BLOCK_T,)
        s = tl.dot(k_tile, tl.trans(q_tile), input_precision="ieee")  # (BLOCK_S,BLOCK_T)
        p = tl.exp2(s * scale - row_lse[None, :])
        if MASKED:
            keep = rows[None, :] < end
            if CAUSAL:
                keep = keep & (columns[:, None] <= rows[None, :] + (S - T))
            if PACKED:
                row_documents = tl.load(documents + rows, mask=rows < T, other=0)  # (BLOCK_T,)
                keep = keep & (column_documents[:, None] == row_documents[None, :])
            p = tl.where(keep, p, 0.0)
        dv_acc = tl.dot(p.to(do.dtype), do, dv_acc, input_precision="ieee")
        dp = tl.dot(v_tile, tl.trans(do), input_precision="ieee")  # (BLOCK_S,BLOCK_T)
        ds = p * (dp - row_delta[None, :])
        dk_acc = tl.dot(ds.to(q_tile.dtype), q_tile, dk_acc, input_precision="ieee")
    return dk_acc, dv_acc
