"""Every block type against the `gguf` library, on random bits and on hard numbers."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.formats.gguf_quants import (
    _PACK,
    _UNPACK,
    dequantize,
    quantize,
    row_bytes,
)
from nano_llama.formats.kinds import UNREAD, Kind

gguf = pytest.importorskip("gguf")


def random_blocks(kind: str, rows: int, blocks: int, seed: int = 0) -> np.ndarray:
    """Any bits, but for float16 scales that are finite: the library warns about others."""
    raw = np.random.default_rng(seed).integers(0, 256, (rows * blocks, Kind[kind].block_bytes), dtype=np.uint8)
    for at in {"Q6_K": [208], "Q8_0": [0], "Q4_0": [0], "Q5_0": [0]}.get(kind, [0, 2]):
        raw[:, at + 1] &= 0xBF  # clears the exponent's top bit
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("kind", sorted(_UNPACK))
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3, 9000)])  # the last is over one chunk for every type
def test_unpacking_equals_the_library(kind, shape):
    blocks = random_blocks(kind, *shape)
    theirs = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    ours = dequantize(kind, blocks)
    assert ours.dtype == np.float32
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_plain_floats_are_blocks_of_one(kind):
    numbers = np.array([[1.5, -2.0, 0.0]], np.float32)
    wanted = gguf.GGMLQuantizationType[kind]
    stored = gguf.quants.quantize(numbers, wanted).view(np.uint8)
    assert np.array_equal(dequantize(kind, stored), numbers)


@pytest.mark.parametrize("kind", sorted(_PACK))
def test_packing_equals_the_library(kind):
    rng = np.random.default_rng(1)
    numbers = rng.standard_normal((70, 640)).astype(np.float32)
    numbers[3] = 0  # a block of zeros
    numbers[4, :32] = 7.25  # a block without spread
    numbers[5] *= 1e-6
    numbers[6] *= 1e3
    numbers[7] = np.round(numbers[7] * 4) / 4  # many ties
    theirs = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[kind])
    assert np.array_equal(quantize(kind, numbers), theirs)


@pytest.mark.parametrize(("kind", "steps"), [("Q8_0", 127), ("Q4_0", 7), ("Q4_1", 15)])
def test_packing_loses_at_most_one_step(kind, steps):
    numbers = np.random.default_rng(2).uniform(-1, 1, (20, 320)).astype(np.float32)
    back = dequantize(kind, quantize(kind, numbers))
    assert np.abs(back - numbers).max() <= 2 / steps


def test_sizes_agree_with_the_library():
    for kind in Kind:
        assert gguf.GGMLQuantizationType(kind.number).name == kind.name == kind
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind.number)] == (kind.block_size, kind.block_bytes)
    for number, name in UNREAD.items():
        assert gguf.GGMLQuantizationType(number).name == name


def test_a_row_of_broken_blocks_is_refused():
    with pytest.raises(UserError, match=r"100 .* Q4_0"):
        row_bytes("Q4_0", 100)


def test_a_type_that_is_only_read_is_refused_for_writing():
    with pytest.raises(UserError, match="Q6_K"):
        quantize("Q6_K", np.zeros((1, 256), np.float32))
