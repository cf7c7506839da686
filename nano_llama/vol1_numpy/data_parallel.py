"""Data parallelism in one process: a batch is cut into shards, one per thread. NumPy's operations release the GIL.

Each shard runs with single-threaded BLAS. Two threads inside every matrix product would have to synchronize some
hundred times per step; two shards synchronize once. The BLAS limit applies to the process while the shards run.
Tests: tests/vol1/test_data_parallel.py.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from nano_llama.vol1_numpy.ops.array import Array

Result = TypeVar("Result")


def shards(num_rows: int, num_shards: int) -> list[slice]:
    """0..num_rows cut into at most `num_shards` consecutive parts whose lengths differ by at most one."""
    num_shards = max(1, min(num_shards, num_rows))
    borders = [num_rows * i // num_shards for i in range(num_shards + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(borders)]


def micro_batches(rows: slice, size: int | None) -> Iterator[slice]:
    """`rows` in consecutive parts of at most `size`; None: all at once. No rows are one empty part."""
    step = size or max(1, rows.stop - rows.start)
    for start in range(rows.start, max(rows.stop, rows.start + 1), step):
        yield slice(start, min(start + step, rows.stop))


def run_shards(work: Callable[[slice], Result], parts: list[slice]) -> list[Result]:
    """[work(part) for part in parts], each part in its own thread; results, and errors, in the order of parts."""
    if len(parts) == 1:
        return [work(parts[0])]
    with single_threaded_blas(), ThreadPoolExecutor(len(parts) - 1) as pool:
        others = [pool.submit(work, part) for part in parts[1:]]
        return [work(parts[0]), *(other.result() for other in others)]


def single_threaded_blas() -> AbstractContextManager:
    """A context in which every matrix product of the process runs on one thread."""
    return blas_threads(1)


def blas_threads(count: int | None) -> AbstractContextManager:
    """A context in which every matrix product of the process runs on this many threads; None: no change."""
    return _blas().limit(limits=count, user_api="blas") if count else nullcontext()


@functools.cache
def _blas() -> ThreadpoolController:
    """The process's BLAS libraries: finding them takes 0.7 ms, as long as a small model's step, so it is done once."""
    return ThreadpoolController()


def rows_of(mask: Array | None, rows: slice) -> Array | None:
    """A shard's part of a mask that broadcasts to (B,1,T,S): its rows where it has any, else the whole."""
    return mask[rows] if mask is not None and mask.ndim == 4 and len(mask) > 1 else mask


def add_grads(total: dict[str, Array], grads: dict[str, Array]) -> dict[str, Array]:
    """total += grads, by name and in place. An empty `total` takes the arrays over."""
    if not total:
        return grads
    for name, grad in grads.items():
        total[name] += grad
    return total
