"""Rotate queries and keys by their position, and put keys and values into the paged cache.

    (x_i, x_{i + K/2}) turns by the angle position * theta_i        Su et al. 2021, arXiv 2104.09864

How a block of 16 positions of one key/value head lies in the cache, for each of its forms:

    float32    keys [K][16 positions]            values [16 positions][K]             lanes of keys are positions,
    bfloat16   keys [K/2][16 positions][2]       values [16/2 positions][K][2]        lanes of values are dimensions;
    int8       keys [K][16 positions]            values [16 positions][K]             scales: 16 of keys, 16 of values

Pairs of bfloat16 fill a lane. K is padded with zeros to a multiple of 32. A byte of int8 is round(x / scale), with the
scale max|x| / 127 of a head's vector at one position. Not here: attention (attention.py), the angles (core/rope.py).
Tests: tests/vol3/kernels/test_small.py.
"""

import numpy as np
from numba import njit

BLOCK = 16  # positions: vol3_engine/blocks.py's BLOCK_SIZE
BFLOAT16_ROUND = np.uint32(0x7FFF)


@njit
def write_token(qkv, n, position, cos, sin, H, G, K, queries, keys, values, kv_scales, layer, block, first, last, head):
    """Heads first ... last-1 of the row's H query, G key and G value heads.

    qkv (N, (H + 2G) K + padding); cos, sin (T, K/2); queries (N, H, K + padding) get the rotated queries over sqrt(K);
    keys, values: the cache, (L, blocks, G, 16 K'); kv_scales (L, blocks, G, 32) for int8; block: the row's place is
    position % 16 in it; head (K',): room for one vector, this thread's own.
    """
    half, place = K // 2, position % BLOCK
    for h in range(first, last):
        start = h * K
        if h < H + G:
            for i in range(half):
                a, b, c, s = qkv[n, start + i], qkv[n, start + half + i], cos[position, i], sin[position, i]
                head[i] = a * c - b * s
                head[half + i] = b * c + a * s
        else:
            for i in range(K):
                head[i] = qkv[n, start + i]
        if h < H:
            root = np.float32(1) / np.sqrt(np.float32(K))
            for i in range(K):
                queries[n, h, i] = head[i] * root
        elif h < H + G:
            put_key(head, K, keys, kv_scales, layer, block, h - H, place)
        else:
            put_value(head, K, values, kv_scales, layer, block, h - H - G, place)


@njit
def put_key(head, K, keys, kv_scales, layer, block, g, place):
    if keys.itemsize == 4:
        for i in range(K):
            keys[layer, block, g, BLOCK * i + place] = head[i]
    elif keys.itemsize == 2:
        bits = head.view(np.uint32)
        for i in range(K):
            keys[layer, block, g, 2 * BLOCK * (i // 2) + 2 * place + i % 2] = bfloat16_of(bits[i])
    else:
        scale = scale_of(head, K)
        kv_scales[layer, block, g, place] = scale
        for i in range(K):
            keys[layer, block, g, BLOCK * i + place] = np.rint(head[i] / scale)


@njit
def put_value(head, K, values, kv_scales, layer, block, g, place):
    width = values.shape[3] // BLOCK
    if values.itemsize == 4:
        for i in range(K):
            values[layer, block, g, width * place + i] = head[i]
    elif values.itemsize == 2:
        bits = head.view(np.uint32)
        for i in range(K):
            values[layer, block, g, 2 * width * (place // 2) + 2 * i + place % 2] = bfloat16_of(bits[i])
    else:
        scale = scale_of(head, K)
        kv_scales[layer, block, g, BLOCK + place] = scale
        for i in range(K):
            values[layer, block, g, width * place + i] = np.rint(head[i] / scale)


@njit
def bfloat16_of(bits):
    """The bits of a float rounded to its upper half, to nearest, ties to even."""
    return np.uint16((bits + BFLOAT16_ROUND + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@njit
def scale_of(head, K):
    peak = np.float32(1e-30)
    for i in range(K):
        peak = max(peak, abs(head[i]))
    return peak * np.float32(1 / 127)
