"""Paged attention against its reference, and batch invariance: a query's bits in any tile."""

import ml_dtypes
import numpy as np
import pytest

from nano_llama.vol3_engine.cpu.kernels.attention import (
    HAS_AMX,
    attend,
    attend_split,
    attention_plain,
    gather_queries,
    query_tile,
    tokens_per_tile,
)
from nano_llama.vol3_engine.cpu.kernels.kv_cache import (
    CONTIGUOUS_BLOCKS,
    DTYPES,
    keys_plain,
    kv_cache,
    padded,
    run_index,
    values_plain,
    write_key,
    write_value,
)
from nano_llama.vol3_engine.cpu.kernels.online_softmax import SPLIT_SIZE, init_partial, merge_partial, store_head

G, LAYER = 2, 1


def filled(dtype, length, head_dim, seed=0):
    """A cache with `length` positions of one layer of three in scattered blocks -> cache, table."""
    rng = np.random.default_rng(seed)
    blocks, width = -(-length // 16), padded(head_dim)
    table = rng.permutation(blocks + 40)[:blocks].astype(np.int64)
    cache, narrow = kv_cache(3, G, blocks + 40, head_dim, dtype), np.zeros(width, DTYPES[dtype])
    x = np.zeros((2, length, G, width), np.float32)
    x[..., :head_dim] = rng.normal(size=(2, length, G, head_dim))
    k, v = x.reshape(2, length, -1)
    for t in range(length):
        for g in range(G):
            write_key(cache, LAYER, g, table[t // 16], t % 16, k, t, g * width, narrow)
            write_value(cache, LAYER, g, table[t // 16], t % 16, v, t, g * width, narrow)
    return cache, table


def run(cache, table, q, position, dtype, tile_tokens=None, prefill=False):
    """q (T,H,K) of the tokens from `position` on -> (T,H,K), in tiles of `tile_tokens`."""
    T, H, K = q.shape
    width, group_size = padded(K), H // G
    rotated = np.zeros((T, H, width), np.float32)
    rotated[..., :K] = q
    tile, out = query_tile(group_size, K, dtype), np.zeros((T, H * K), np.float32)
    step = tile_tokens or tokens_per_tile(group_size, prefill)
    for first in range(0, T, step):
        tokens = min(step, T - first)
        for g in range(G):
            gather_queries(rotated.reshape(T, -1), first, tokens, g * group_size, group_size, K, tile)
            attend(cache, LAYER, g, table, 0, first, tokens, position + first, group_size, K, prefill, tile, out, 0, 0)
    return out.reshape(T, H, K)


def queries(tokens, group_size, head_dim, seed=1):
    return np.random.default_rng(seed).normal(size=(tokens, G * group_size, head_dim)).astype(np.float32)


PREFILL = [False, True] if HAS_AMX else [False]


def rounded(x):
    return x.astype(ml_dtypes.bfloat16).astype(np.float32)


def attention_plain_bf16(q, position, cache, g, table):
    """The reference for the tiles: q, k, v rounded to bfloat16; and what rounding weights and `exp_approx` may add.

    Each of them is known to 2^-8 + 2^-13 of itself, their sum l to 2^-13.
    """
    scale = np.float32(1) / np.sqrt(np.float32(q.shape[-1]))
    keys, values = (
        rounded(f(cache, LAYER, g, table))[: position + len(q), : q.shape[-1]] for f in (keys_plain, values_plain)
    )
    scores = np.einsum("tmk,sk->tms", rounded(q * scale).astype(np.float64), keys)
    masked = np.arange(position + len(q)) > position + np.arange(len(q))[:, None]
    weights = np.exp(np.where(masked[:, None], -np.inf, scores))
    weights /= weights.sum(-1, keepdims=True)
    return weights @ values, (2**-8 + 2**-12) * (weights @ np.abs(values)) + 1e-5


@pytest.mark.parametrize("prefill", PREFILL)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("position", "tokens", "group_size", "head_dim"),
    [(0, 1, 3, 64), (0, 37, 3, 64), (255, 2, 1, 8), (256, 1, 4, 40), (500, 70, 2, 80), (15, 18, 40, 16)],
)
def test_attention_equals_its_plain_twin(dtype, position, tokens, group_size, head_dim, prefill):
    cache, table = filled(dtype, position + tokens, head_dim)
    q = queries(tokens, group_size, head_dim)
    out = run(cache, table, q, position, dtype, prefill=prefill)
    for g in range(G):
        own = slice(g * group_size, (g + 1) * group_size)
        if prefill and dtype != "float32":
            meant, bound = attention_plain_bf16(q[:, own], position, cache, g, list(table))
            assert np.all(np.abs(out[:, own] - meant) < bound)
            near = attention_plain(q[:, own], position, cache, LAYER, g, list(table))
            np.testing.assert_allclose(out[:, own], near, atol=0.02)
        else:
            meant = attention_plain(q[:, own], position, cache, LAYER, g, list(table))
            np.testing.assert_allclose(out[:, own], meant, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("prefill", PREFILL)
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_invariance(dtype, prefill):
    cache, table = filled(dtype, 600, 64)
    q = queries(90, 3, 64)
    whole = run(cache, table, q, 510, dtype, prefill=prefill)
    for step in (1, 7):
        smaller_tiles = run(cache, table, q, 510, dtype, tile_tokens=step, prefill=prefill)
        np.testing.assert_array_equal(smaller_tiles, whole)


@pytest.mark.parametrize("prefill", PREFILL)
def test_splits_of_several_threads_merge_to_the_same_bits(prefill):
    cache, table = filled("bfloat16", 700, 64)
    q = queries(1, 3, 64)
    tile, out = query_tile(3, 64, "bfloat16"), np.zeros((1, G * 3 * 64), np.float32)
    partials, stats = np.zeros((9, 64), np.float32), np.zeros((9, 2), np.float32)
    for g in range(G):
        for split in reversed(range(3)):
            gather_queries(q.reshape(1, -1), 0, 1, g * 3, 3, 64, tile)
            attend_split(cache, LAYER, g, table, 0, split, 1, 699, 3, prefill, tile, G - 1, 40)
            own = slice(3 * split, 3 * split + 3)
            partials[own], stats[own] = tile.partial[:3], tile.partial_stats[:3]
        for m in range(3):
            init_partial(tile.acc, tile.stats, 0)
            for split in range(-(-700 // SPLIT_SIZE)):
                merge_partial(tile.acc, tile.stats, 0, partials, stats, 3 * split + m)
            store_head(tile.acc, tile.stats, 0, out, 0, (g * 3 + m) * 64, 64)
    np.testing.assert_array_equal(out, run(cache, table, q, 699, "bfloat16", prefill=prefill).reshape(1, -1))


def test_runs_are_distinct_and_contiguous_per_head():
    cache = kv_cache(3, G, 70, 32, "bfloat16")
    runs = np.array(
        [[[run_index.py_func(cache, layer, g, block) for block in range(70)] for g in range(G)] for layer in range(3)]
    )
    assert sorted(runs.flat) == list(range(len(cache.keys))) == list(range(len(cache.values)))
    assert np.all(np.diff(runs, axis=2)[..., np.arange(69) % CONTIGUOUS_BLOCKS != CONTIGUOUS_BLOCKS - 1] == 1)


@pytest.mark.parametrize(
    ("dtype", "prefill", "nan"), [("float32", False, np.nan), *(("bfloat16", prefill, 0x7FC0) for prefill in PREFILL)]
)
def test_positions_after_the_last_are_ignored(dtype, prefill, nan):
    cache, table = filled(dtype, 100, 64)
    q = queries(4, 3, 64)
    before = run(cache, table, q, 86, dtype, prefill=prefill)
    runs = [run_index.py_func(cache, LAYER, head, table[90 // 16]) for head in range(cache.kv_heads)]
    cache.keys[runs, :, 90 % 16 :] = nan
    cache.values[runs, 90 % 16 :] = nan
    np.testing.assert_array_equal(run(cache, table, q, 86, dtype, prefill=prefill), before)
