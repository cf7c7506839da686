"""What a wrong array usually means: a factor, a sign, a transposition, a shift, a missing term.

Tests: tests/learn/test_patterns.py.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

CLOSE = 1e-6
NEARLY = 1e-3  # relative
VAGUE = "Most entries are right: look at what is special about the others."


def usual_cause(found: Any, expected: Any, sizes: Mapping[str, int]) -> str:
    """A sentence about what mistake gives such an array, or nothing. sizes: "D" -> 8, to name a factor."""
    if not _numbers(found) or not _numbers(expected) or np.shape(found) != np.shape(expected):
        return _about_shape(found, expected)
    if getattr(found, "dtype", None) != getattr(expected, "dtype", None) and isinstance(expected, np.ndarray):
        return (
            "A float64 on the way makes it so: np.zeros without a dtype, an array of integers in a product, "
            "or a NumPy number, unlike Python's own."
        )
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if np.isnan(found).any() and not np.isnan(expected).any():
        return "NaN comes from 0/0, inf - inf or 0 * inf: which of these can the input reach?"
    if np.isinf(found).any() and not np.isinf(expected).any():
        return "Infinity: an exp of a large number, or a division by 0."
    if found.size > 1 and not found.any():
        return "It is zero throughout: was the result computed and never stored?"
    return next(_sentences(found, expected, sizes), "")


def _sentences(found: np.ndarray, expected: np.ndarray, sizes: Mapping[str, int]) -> Iterator[str]:
    if _close(found, -expected):
        yield "The sign is the opposite: which minus was lost?"
    factor = _constant_factor(found, expected)
    if factor is not None:
        yield from _about_factor(factor, sizes, expected.size)
    if found.ndim >= 2 and found.shape[-1] == found.shape[-2] and _close(found, np.swapaxes(expected, -1, -2)):
        yield "It is the transpose: are rows and columns exchanged in a product?"
    for axis in range(found.ndim):
        if found.shape[axis] <= 2:  # of two entries, little can be told
            continue
        if _close(found, np.flip(expected, axis)):
            yield f"It is in reverse order along axis {axis}."
        if any(_close(found, np.roll(expected, move, axis)) for move in (1, -1)):
            yield f"It is shifted by one along axis {axis}."
    gap = found - expected
    if found.size > 2 and _close(gap, np.full_like(gap, gap.flat[0])):
        yield f"Every entry is off by the same {gap.flat[0]:.4g}: a term is missing, or one too many."
    if found.ndim >= 1 and found.shape[-1] > 2:
        if _close(gap, np.broadcast_to(gap[..., :1], gap.shape)):
            yield "Along the last axis every entry is off by the same amount: a mean or sum over it is missing?"
        zero = (found == 0) & (expected != 0)
        if zero.any() and _close(np.where(zero, expected, found), expected):
            yield "Some entries are 0 and the others are right: a place was skipped, or written over."
        if np.all(np.abs(gap) <= NEARLY * np.abs(expected)):
            yield "It is nearly right: is a small term out of place, or are nearly equal numbers subtracted?"
        right = np.isclose(found, expected, rtol=CLOSE, atol=0)
        if right.mean() >= 0.5:
            yield VAGUE


def _about_factor(factor: float, sizes: Mapping[str, int], entries: int) -> Iterator[str]:
    """Of one or two entries only a factor that is one of the sizes: any other may be there by chance.

    Where a size is 2, a factor of 2 is left for a larger case to tell.
    """
    names = {name: float(size) for name, size in sizes.items() if size > 2}
    names |= {f"{a} {b}": sizes[a] * sizes[b] for a, b in combinations(names, 2)}
    for name, size in names.items():
        if np.isclose(factor, size, rtol=CLOSE):
            yield f"Every entry is {name} = {size:g} times too large: a sum where a mean belongs?"
        if np.isclose(factor, 1 / size, rtol=CLOSE):
            yield f"Every entry is {name} = {size:g} times too small: a mean where a sum belongs?"
        root = np.isclose(factor, size**0.5, rtol=CLOSE) or np.isclose(factor, size**-0.5, rtol=CLOSE)
        if root and size != 4:
            yield f"Every entry is off by a factor of the square root of {name} = {size:g}."
    two = np.isclose(factor, 2, rtol=CLOSE) or np.isclose(factor, 0.5, rtol=CLOSE)
    if two and 2 in sizes.values():
        return
    if two:
        yield "Every entry is off by a factor of 2: the 2 of a square's derivative, or a term counted twice?"
    if entries > 2:
        yield f"Every entry is {factor:.4g} times what it should be: a constant factor is missing, or one too many."


def _about_shape(found: Any, expected: Any) -> str:
    if not _numbers(found) or not _numbers(expected):
        return ""
    if np.shape(found) == np.shape(expected)[::-1]:
        return "It is the transposed shape: are the factors of a product exchanged?"
    if np.ndim(found) > np.ndim(expected):
        return "There are axes too many: was a sum over the leading axes forgotten?"
    if np.size(found) == np.size(expected):
        return "The number of entries is right, the shape is not: a reshape is missing."
    return ""


def _constant_factor(found: np.ndarray, expected: np.ndarray) -> float | None:
    """k where found = k expected, k not 1."""
    used = np.abs(expected) > CLOSE * np.max(np.abs(expected), initial=0)
    if not used.any():
        return None
    factor = float(np.median(found[used] / expected[used]))
    return factor if np.isfinite(factor) and abs(factor - 1) > CLOSE and _close(found, factor * expected) else None


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    scale = max(float(np.max(np.abs(a), initial=0)), float(np.max(np.abs(b), initial=0)), 1e-300)
    return bool(np.all(np.abs(a - b) <= CLOSE * scale))


def _numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray | float | np.floating) and np.asarray(value).dtype.kind in "fiu"
