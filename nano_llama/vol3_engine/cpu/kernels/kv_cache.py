"""The KV cache in blocks of 16 positions: float32, bfloat16, or int8 with a scale for each head's vector.

    keys    (runs, K', 16)     a position is a lane: scores of 16 positions at once, without sums across lanes
    values  (runs, 16, K')     a dimension is a lane: sums over positions, likewise
    scales  (runs, 2, 16)      int8 only: of each position's key and value

A run is what one head of one layer stores of one block; K' is the head's size, padded to a multiple of 16. Runs lie

    blocks 0-31: layer 0: head 0, head 1, ...; layer 1: ...        blocks 32-63: layer 0: ...        and so on

so that 512 positions of a head are contiguous, and yet a short sequence touches a small part of a large cache. (With
layers first, it would touch a page of 2 MiB for each layer and head.)
Not here: which sequence has which block (blocks.py). Tests: tests/vol3/cpu/kernels/test_attention.py.
"""

from typing import NamedTuple

import ml_dtypes
import numpy as np
from numba import types
from numba.extending import overload

from nano_llama.vol3_engine.cpu.aligned import CACHE_LINE
from nano_llama.vol3_engine.cpu.jit.jit import kernel, noinline
from nano_llama.vol3_engine.cpu.kernels.activations import MIN_PEAK
from nano_llama.vol3_engine.cpu.simd.intrinsics import (
    absolute,
    load,
    load_bfloat,
    load_int8,
    maximum,
    prefetch,
    reduce_max,
    round_to_int32,
    splat,
    store,
    store_bfloat,
    store_int8,
)

BLOCK_SIZE = 16  # positions
CONTIGUOUS_BLOCKS = 32  # whose runs of one head are contiguous
KEY, VALUE = range(2)  # which scales of a run
DTYPES = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}  # Numba has no bfloat16: its bits


class KVCache(NamedTuple):
    """Keys and values of all layers, laid out as above."""

    keys: np.ndarray
    values: np.ndarray
    scales: np.ndarray
    layers: int  # L
    kv_heads: int  # G
    blocks: int


def padded(head_dim: int) -> int:
    return -(-head_dim // 16) * 16


def kv_cache(layers: int, kv_heads: int, num_blocks: int, head_dim: int, dtype: str) -> KVCache:
    """Zeros; the operating system allocates memory as it is written. Raises MemoryError."""
    kind, width = DTYPES[dtype], padded(head_dim)
    runs = layers * kv_heads * num_blocks
    return KVCache(
        keys=np.zeros((runs, width, BLOCK_SIZE), kind),
        values=np.zeros((runs, BLOCK_SIZE, width), kind),
        scales=np.zeros((runs if dtype == "int8" else 1, 2, BLOCK_SIZE), np.float32),
        layers=layers,
        kv_heads=kv_heads,
        blocks=num_blocks,
    )


@kernel
def run_index(cache, layer, head, block):
    """The run with a block's keys, or values, of a head."""
    first = block - block % CONTIGUOUS_BLOCKS
    contiguous = min(CONTIGUOUS_BLOCKS, cache.blocks - first)  # the last ones may be fewer
    return first * cache.layers * cache.kv_heads + (layer * cache.kv_heads + head) * contiguous + block - first


def bytes_per_token(layers: int, kv_heads: int, head_dim: int, dtype: str) -> int:
    vector = padded(head_dim) * np.dtype(DTYPES[dtype]).itemsize + (4 if dtype == "int8" else 0)
    return 2 * layers * kv_heads * vector


# -- by dtype, chosen when the kernel is compiled ---------------------------------------------------------------------


def is_scaled(array):
    """Whether it is int8, to be multiplied by a scale."""
    return array.dtype == np.int8


@overload(is_scaled)
def _is_scaled(array):
    scaled = array.dtype == types.int8
    return lambda array: scaled


def is_exact(array):
    """Whether it is float32."""
    return array.dtype == np.float32


@overload(is_exact)
def _is_exact(array):
    exact = array.dtype == types.float32
    return lambda array: exact


def load_floats(array, *index):
    """16 elements from array[index] on, as floats."""
    kind = ml_dtypes.bfloat16 if array.dtype == np.uint16 else array.dtype
    flat, at = array.view(kind).reshape(-1), np.ravel_multi_index(index, array.shape)
    return flat[at : at + 16].astype(np.float32)


@overload(load_floats)
def _load_number(array, *index):
    if array.dtype == types.float32:
        return lambda array, *index: load(array, *index)
    if array.dtype == types.uint16:
        return lambda array, *index: load_bfloat(array, *index)
    return lambda array, *index: load_int8(array, *index)


def store_rounded(array, i, vector):
    """array[i : i + 16] = vector, rounded to the array's dtype."""
    kind = ml_dtypes.bfloat16 if array.dtype == np.uint16 else array.dtype
    rounded = np.rint(vector) if array.dtype == np.int8 else vector
    array.view(kind)[i : i + 16] = rounded.astype(kind)


@overload(store_rounded)
def _store_number(array, i, vector):
    if array.dtype == types.float32:
        return lambda array, i, vector: store(array, i, vector)
    if array.dtype == types.uint16:
        return lambda array, i, vector: store_bfloat(array, i, vector)
    return lambda array, i, vector: store_int8(array, i, round_to_int32(vector))


# -- writing ----------------------------------------------------------------------------------------------------------


@kernel
def narrow_head(x, n, start, narrow):
    """The head at column `start` of row n of x, rounded into narrow (K',) -> its scale (1 if the cache has none)."""
    scale = np.float32(1)
    if is_scaled(narrow):
        peak = splat(MIN_PEAK)
        for i in range(0, narrow.shape[0], 16):
            peak = maximum(peak, absolute(load(x, n, start + i)))
        scale = reduce_max(peak) * np.float32(1 / 127)
    inverse = splat(np.float32(1) / scale)
    for i in range(0, narrow.shape[0], 16):
        store_rounded(narrow, i, load(x, n, start + i) * inverse)
    return scale


@kernel
def write_key(cache, layer, head, block, slot, x, n, start, narrow):
    """Write the head at column `start` of row n of x as the key at position `slot` of a block."""
    noinline()
    run, scale = run_index(cache, layer, head, block), narrow_head(x, n, start, narrow)
    for i in range(narrow.shape[0]):
        cache.keys[run, i, slot] = narrow[i]
    if is_scaled(narrow):
        cache.scales[run, KEY, slot] = scale


@kernel
def write_value(cache, layer, head, block, slot, x, n, start, narrow):
    noinline()
    run, scale = run_index(cache, layer, head, block), narrow_head(x, n, start, narrow)
    for i in range(narrow.shape[0]):
        cache.values[run, slot, i] = narrow[i]
    if is_scaled(narrow):
        cache.scales[run, VALUE, slot] = scale


# -- reading ----------------------------------------------------------------------------------------------------------


@kernel
def prefetch_keys(cache, layer, head, block):
    """Prefetch a block's keys."""
    run = run_index(cache, layer, head, block)
    for i in range(0, cache.keys.shape[1], CACHE_LINE // BLOCK_SIZE // cache.keys.itemsize):
        prefetch(cache.keys, run, i, 0)


@kernel
def prefetch_values(cache, layer, head, block):
    run, width, step = run_index(cache, layer, head, block), cache.values.shape[2], CACHE_LINE // cache.values.itemsize
    for slot in range(BLOCK_SIZE):
        for i in range(0, width, step):
            prefetch(cache.values, run, slot, i)


@kernel
def load_key(cache, run, k):
    """Dimension k of a run's 16 keys, as floats, without their scales."""
    return load_floats(cache.keys, run, k, 0)


@kernel
def load_value(cache, run, slot, k):
    """Dimensions k ... k+15 of a position's value, as floats, without its scale."""
    return load_floats(cache.values, run, slot, k)


@kernel
def widen_keys(cache, layer, head, block, out, b):
    """A block's keys as floats, without scales: out[b] (K',16)."""
    noinline()
    run = run_index(cache, layer, head, block)
    for k in range(out.shape[1]):
        store(out, b, k, 0, load_key(cache, run, k))


@kernel
def widen_values(cache, layer, head, block, out, b):
    """A block's values as floats, without scales: out[16 b ... 16 b + 15] (16,K')."""
    noinline()
    run = run_index(cache, layer, head, block)
    for slot in range(BLOCK_SIZE):
        for k in range(0, out.shape[1], 16):
            store(out, BLOCK_SIZE * b + slot, k, load_value(cache, run, slot, k))


@kernel
def apply_scales(cache, which, layer, head, tables, first, end, scores, rows):
    """Multiply scores, or weights, of positions 0 ... end-1 from block tables[first] on by the KEY or VALUE scales."""
    if is_scaled(cache.keys):
        for j in range(0, end, BLOCK_SIZE):
            scales = load(cache.scales, run_index(cache, layer, head, tables[first + j // BLOCK_SIZE]), which, 0)
            for i in rows:
                store(scores, i, j, load(scores, i, j) * scales)


def keys_plain(cache: KVCache, layer: int, head: int, table: list[int]) -> np.ndarray:
    """The reference: keys of all positions of a block table, (16 * blocks, K') float32."""
    runs = [run_index.py_func(cache, layer, head, block) for block in table]
    keys = _floats(cache.keys[runs])  # (blocks, K', 16)
    if is_scaled(cache.keys):
        keys = keys * cache.scales[runs, KEY][:, None, :]
    return keys.transpose(0, 2, 1).reshape(-1, keys.shape[1])


def values_plain(cache: KVCache, layer: int, head: int, table: list[int]) -> np.ndarray:
    """The same for values, (16 * blocks, K') float32."""
    runs = [run_index.py_func(cache, layer, head, block) for block in table]
    values = _floats(cache.values[runs])  # (blocks, 16, K')
    if is_scaled(cache.values):
        values = values * cache.scales[runs, VALUE][:, :, None]
    return values.reshape(-1, values.shape[2])


def _floats(array: np.ndarray) -> np.ndarray:
    return (array.view(ml_dtypes.bfloat16) if array.dtype == np.uint16 else array).astype(np.float32)
