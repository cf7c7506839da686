"""What /inspect/replay answers, as the page reads it."""

import json
import struct

import numpy as np


def unpacked(content: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """The head, and the arrays by name."""
    (length,) = struct.unpack("<I", content[:4])
    head, start = json.loads(content[4 : 4 + length]), 4 + length
    assert start % 8 == 0
    arrays = {}
    for array in head["arrays"]:
        dtype, count = np.dtype(array["dtype"]), int(np.prod(array["shape"]))
        assert array["offset"] % 8 == 0
        flat = np.frombuffer(content, dtype, count, start + array["offset"])
        arrays[array["name"]] = flat.reshape(array["shape"])
    return head, arrays
