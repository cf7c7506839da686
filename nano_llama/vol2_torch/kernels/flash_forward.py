"""Flash attention's forward on a GPU: one program computes the outputs of one tile of queries of one head.

The derivation, and the same loop in NumPy, are in vol1_numpy/ops/flash_attention.py. What is different here:

- Exponentials are powers of two, one instruction: softmax(x) has weights 2^(x log2 e - m) / sum. log2 e is multiplied
  into `scale`, and m and the log-sum-exp that the backward reads are in base 2 too.
- Tiles in which every query sees every key need no mask. They come first, in a loop of their own; the few at the
  diagonal and at the end of the keys follow. Tiles beyond the diagonal are not visited.
- Tiles have powers of two as sides. Rows beyond the end and dimensions beyond K are read as zeros.

Shapes: B batch, H query heads, G key/value heads, T queries, S keys, K head dim. flash_attention.py launches it.
Tests: tests/vol2/kernels/test_flash_attention.py.
"""

import triton
import triton.language as tl


@triton.jit
def forward_kernel(
    q, k, v, out, lse, documents, key_documents,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, out_batch, out_head, out_row,
    H, T, S, scale,
    GROUP: tl.constexpr, K: tl.constexpr, CAUSAL: tl.constexpr, PACKED: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """q (B,H,T,K), k, v (B,G,S,K), documents (B,T), key_documents (B,S) -> out (B,H,T,K), lse (B,H,T) in base 2.

    X_batch, X_head, X_row: the strides of X, whose rows are contiguous. scale: log2(e) / sqrt(K). GROUP: H / G.
    PACKED: attention stays within documents. WIDE: the type of sums, float32 or float64.
    """
    tile, head, batch = tile_head_batch(T, H, BLOCK_T)
    begin = (tl.cdiv(T, BLOCK_T) - 1 - tile) * BLOCK_T  # the last rows see the most keys, so they begin first
    rows = begin + tl.arange(0, BLOCK_T)
    k += batch * k_batch + (head // GROUP) * k_head
    v += batch * v_batch + (head // GROUP) * v_head
    q += batch * q_batch + head * q_head
    q_tile = load_rows(q, q_row, begin, T, K, BLOCK_T, BLOCK_K, True)  # (BLOCK_T,BLOCK_K)
    row_documents = rows
    if PACKED:
        row_documents = tl.load(documents + batch * T + tl.minimum(rows, T - 1))  # (BLOCK_T,)
        key_documents += batch * S
    first, free, end = visible_keys(begin, row_documents, key_documents, T, S, CAUSAL, PACKED, BLOCK_T, BLOCK_S)

    top = tl.full((BLOCK_T,), float("-inf"), WIDE)  # m: the maximum so far
    total = tl.zeros((BLOCK_T,), WIDE)  # l: sum 2^(score - m)
    acc = tl.zeros((BLOCK_T, BLOCK_K), WIDE)  # o: sum 2^(score - m) v
    acc, total, top = attend(
        acc, total, top, q_tile, k, v, k_row, v_row, rows, row_documents, key_documents, first, free, T, S, scale,
        K, CAUSAL, PACKED, False, BLOCK_S, BLOCK_K,
    )  # fmt: skip
    acc, total, top = attend(
        acc, total, top, q_tile, k, v, k_row, v_row, rows, row_documents, key_documents, free, end, T, S, scale,
        K, CAUSAL, PACKED, True, BLOCK_S, BLOCK_K,
    )  # fmt: skip

    empty = total == 0  # rows that see no key: their output is 0, and lse = inf makes every 2^(score - lse) zero
    total = tl.where(empty, 1.0, total)
    out += batch * out_batch + head * out_head
    store_rows(out, out_row, begin, T, acc / total[:, None], K, BLOCK_T, BLOCK_K)
    lse += (batch * H + head) * T
    tl.store(lse + rows, tl.where(empty, float("inf"), top + tl.log2(total)), mask=rows < T)


@triton.jit
def tile_head_batch(length, heads, BLOCK: tl.constexpr):
    """What this program computes: a tile of one head of one batch entry; int64, as offsets may exceed 2^31."""
    tiles = tl.cdiv(length, BLOCK)
    head, batch = tl.program_id(0) // tiles % heads, tl.program_id(0) // tiles // heads
    return tl.program_id(0) % tiles, head.to(tl.int64), batch.to(tl.int64)


@triton.jit
def attend(
    acc, total, top, q_tile, k, v, k_row, v_row, rows, row_documents, key_documents, first, end, T, S, scale,
    K: tl.constexpr, CAUSAL: tl.constexpr, PACKED: tl.constexpr, MASKED: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The online softmax over the keys from `first` to `end`: acc (BLOCK_T,BLOCK_K), total and top (BLOCK_T,)."""
    for start in range(first, end, BLOCK_S):
        k_tile = load_rows(k, k_row, start, S, K, BLOCK_S, BLOCK_K, MASKED)  # (BLOCK_S,BLOCK_K)
        s = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee")  # (BLOCK_T,BLOCK_S)
        if MASKED:
            keep = visible(rows, row_documents, start, key_documents, T, S, CAUSAL, PACKED, BLOCK_S)
            s = tl.where(keep, s, float("-inf"))
        new = tl.maximum(top, tl.max(s, 1) * scale)
        finite = new
        if MASKED:
            finite = tl.where(new == float("-inf"), 0.0, new)  # nothing seen yet: any finite number keeps 2^-inf = 0
        p = tl.exp2(s * scale - finite[:, None])
        old = tl.exp2(top - finite)
        total = total * old + tl.sum(p, 1)
        v_tile = load_rows(v, v_row, start, S, K, BLOCK_S, BLOCK_K, MASKED)  # (BLOCK_S,BLOCK_K)
        acc = tl.dot(p.to(v_tile.dtype), v_tile, acc * old[:, None], input_precision="ieee")
        top = new
    return acc, total, top


@triton.jit
def visible_keys(
    begin, row_documents, key_documents, T, S,
    CAUSAL: tl.constexpr, PACKED: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    """Of a tile of queries: first, free, end. Keys below first and from end on are unseen; those from first to free,
    whole tiles, are seen by all of its queries and need no mask.

    Only causal attention has such tiles. Elsewhere a loop for one last, ragged tile would cost more than masks do:
    with it in the program the assembler waits for every single product (dev/LOG.md).
    """
    first, free, end = 0, 0, S
    if CAUSAL:  # query t sees keys up to t + S - T: the last query sees the last key
        end = tl.maximum(tl.minimum(begin + BLOCK_T, T) + S - T, 0)
        free = tl.maximum(begin + S - T + 1, 0) // BLOCK_S * BLOCK_S
    if PACKED:
        first, end = document_range(row_documents, key_documents, 0, end)
        free = first
    return first, free, end


@triton.jit
def visible(
    rows, row_documents, start, key_documents, T, S, CAUSAL: tl.constexpr, PACKED: tl.constexpr, BLOCK_S: tl.constexpr
):
    """Which query sees which of the BLOCK_S keys from `start` on.    -> (BLOCK_T,BLOCK_S)"""
    columns = start + tl.arange(0, BLOCK_S)
    keep = columns[None, :] < S
    if CAUSAL:
        keep = keep & (columns[None, :] <= rows[:, None] + (S - T))
    if PACKED:
        column_documents = tl.load(key_documents + columns, mask=columns < S, other=0)  # (BLOCK_S,)
        keep = keep & (column_documents[None, :] == row_documents[:, None])
    return keep


@triton.jit
def document_range(own, documents, begin, end):
    """Where, from `begin` to `end`, documents lie whose numbers are between own's smallest and largest: first, end.

    Exact for documents in ascending order, as packing numbers them; for any other order it is not too narrow.
    """
    CHUNK: tl.constexpr = 1024
    low, high = tl.min(own, 0), tl.max(own, 0)
    first, last = end, begin
    for start in range(begin, end, CHUNK):
        at = start + tl.arange(0, CHUNK)
        ids = tl.load(documents + at, mask=at < end, other=0)  # (CHUNK,)
        near = (at < end) & (ids >= low) & (ids <= high)
        first = tl.minimum(first, tl.min(tl.where(near, at, end), 0))
        last = tl.maximum(last, tl.max(tl.where(near, at + 1, begin), 0))
    return first, last


@triton.jit
def load_rows(
    matrix, stride, start, limit, K: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr, MASKED: tl.constexpr
):
    """Rows from `start` of a matrix (limit,K), zeros beyond K and, where MASKED, beyond its end.  -> (BLOCK,BLOCK_K)"""
    rows, dims = tl.arange(0, BLOCK), tl.arange(0, BLOCK_K)
    at = matrix + tl.cast(start, tl.int64) * stride + (rows[:, None] * stride + dims[None, :])
    if MASKED:
        return tl.load(at, mask=(rows[:, None] < limit - start) & (dims[None, :] < K), other=0.0)
    elif BLOCK_K > K:
        return tl.load(at, mask=dims[None, :] < K, other=0.0)
    else:
        return tl.load(at)


@triton.jit
def store_rows(matrix, stride, start, limit, tile, K: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):
    """The tile (BLOCK,BLOCK_K) into the rows from `start` of a matrix (limit,K), rounded to its dtype."""
    rows, dims = tl.arange(0, BLOCK), tl.arange(0, BLOCK_K)
    at = matrix + tl.cast(start, tl.int64) * stride + (rows[:, None] * stride + dims[None, :])
    tl.store(at, tile.to(matrix.dtype.element_ty), mask=(rows[:, None] < limit - start) & (dims[None, :] < K))
