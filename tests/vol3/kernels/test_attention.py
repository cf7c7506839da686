"""Attention over pages against the plain twin; and a query's bits in other company."""

import numpy as np
import pytest

from nano_llama.vol3_engine.kernels.attention import PART, attend, attention_plain, finish, merge
from nano_llama.vol3_engine.kernels.rope import write_token

K, G = 40, 2
WIDTH = 64


def cache(dtype, length, seed=0):
    """A cache with `length` positions of one layer in scattered blocks -> (cache arrays, table, keys, values)."""
    rng = np.random.default_rng(seed)
    blocks = -(-length // 16)
    table = rng.permutation(blocks + 3)[:blocks].astype(np.int32)
    keys, values = (np.zeros((1, blocks + 3, G, 16 * WIDTH), dtype) for _ in range(2))
    scales = np.zeros((1, blocks + 3, G, 32), np.float32)
    k, v = rng.normal(size=(2, length, G, K)).astype(np.float32)
    flat = np.concatenate([k, v], axis=1).reshape(length, -1)
    cos, sin = np.ones((length, K // 2), np.float32), np.zeros((length, K // 2), np.float32)  # no turn
    queries, head = np.zeros((length, 0, WIDTH), np.float32), np.zeros(WIDTH, np.float32)
    for t in range(length):
        write_token(flat, t, t, cos, sin, 0, G, K, queries, keys, values, scales, 0, table[t // 16], 0, 2 * G, head)
    return (keys, values, scales), table, k, v


def run(arrays, table, q, seen, g):
    """All parts of four queries, merged -> (4, K)."""
    keys, values, scales = arrays
    scores, records = np.zeros((4, PART), np.float32), np.zeros((4, WIDTH + 16), np.float32)
    totals, out = np.zeros((4, WIDTH + 16), np.float32), np.zeros((4, K), np.float32)
    for part in range(-(-max(seen) // PART)):
        attend(q, seen, keys, values, scales, 0, table, g, part, scores, records)
        for j in range(4):
            if seen[j] > part * PART:
                merge(totals, j, records, j, WIDTH, part == 0)
    for j in range(4):
        if seen[j]:
            finish(totals, j, WIDTH, out, j, 0, K)
    return out


def queries(seed=1):
    q = np.zeros((4, WIDTH), np.float32)
    q[:, :K] = np.random.default_rng(seed).normal(size=(4, K)) / np.sqrt(K)
    return q


@pytest.mark.parametrize(
    ("dtype", "bound"), [(np.float32, 2e-6), (np.uint16, 2e-2), (np.int8, 3e-2)], ids=["float32", "bfloat16", "int8"]
)
@pytest.mark.parametrize("seen", [(1, 2, 3, 4), (15, 16, 17, 18), (255, 256, 257, 258), (700, 1, 0, 531)], ids=str)
def test_four_queries_see_what_they_may(dtype, bound, seen):
    arrays, table, k, v = cache(dtype, max(seen))
    q, seen = queries(), np.array(seen)
    for g in range(G):
        out = run(arrays, table, q, seen, g)
        for j in range(4):
            if seen[j]:
                meant = attention_plain(q[j, :K], k[: seen[j], g], v[: seen[j], g])
                np.testing.assert_allclose(out[j], meant, atol=bound)


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int8], ids=["float32", "bfloat16", "int8"])
def test_a_querys_bits_do_not_depend_on_its_company(dtype):
    arrays, table, _, _ = cache(dtype, 601)
    q = queries()
    together = run(arrays, table, q, np.array([601, 300, 17, 513]), 1)
    for j, seen in enumerate((601, 300, 17, 513)):
        alone = np.zeros_like(q)
        alone[2] = q[j]
        np.testing.assert_array_equal(run(arrays, table, alone, np.array([0, 0, seen, 0]), 1)[2], together[j])


def test_what_lies_behind_the_last_position_does_not_matter():
    arrays, table, _, _ = cache(np.float32, 100)
    before = run(arrays, table, queries(), np.array([90, 37, 33, 40]), 0)
    for array in arrays[:2]:
        blocks = array.reshape(1, -1, G, 16, WIDTH) if array is arrays[1] else array.reshape(1, -1, G, WIDTH, 16)
        page = blocks[0, table[90 // 16]]
        (page[:, 90 % 16 :] if array is arrays[1] else page[:, :, 90 % 16 :])[:] = np.nan
    np.testing.assert_array_equal(run(arrays, table, queries(), np.array([90, 37, 33, 40]), 0), before)
