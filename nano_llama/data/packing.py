"""Packing: which sequences share a row, so that little of it is padding. Tests: tests/data/sft/test_batches.py.

Best fit, the longest first: each sequence goes into the fullest row that still has room for it. The rows are close to
the fewest possible, and are the same for the same lengths.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], context: int) -> list[list[int]]:
    """Rows of at most `context` tokens: in each the numbers of its sequences. lengths: of all, at most `context`."""
    assert all(0 < length <= context for length in lengths), "sequences fit"
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, -row), ascending; only rows that have room
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        length = lengths[number]
        place = bisect_left(room, (length, -len(rows)))
        if place < len(room):
            free, row = room.pop(place)
            rows[-row].append(number)
        else:
            free, row = context, -len(rows)
            rows.append([number])
        if free > length:
            insort(room, (free - length, row))
    return rows
