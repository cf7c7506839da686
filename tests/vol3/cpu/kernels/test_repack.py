"""Blocks of a GGUF, moved into packed matrices, mean what the core's own dequantization says."""

import numpy as np
import pytest

from nano_llama.formats.gguf_quants import dequantize, quantize
from nano_llama.formats.kinds import WRITABLE_BLOCKS
from nano_llama.vol3_engine.cpu.aligned import aligned
from nano_llama.vol3_engine.cpu.kernels.pack import Matrix, packed_bytes, unpack
from nano_llama.vol3_engine.cpu.kernels.repack import repack, whole_blocks


@pytest.mark.parametrize("kind", WRITABLE_BLOCKS)
@pytest.mark.parametrize("columns", [64, 96])
def test_no_number_changes(kind, columns):
    rng = np.random.default_rng(0)
    blocks = quantize(kind, rng.normal(size=(40, columns)).astype(np.float32))
    order = np.concatenate([rng.permutation(40)[:30], [-1, 3]])
    data = aligned(packed_bytes(kind.number, len(order), columns))
    repack(kind.number, blocks, whole_blocks(order), 0, len(order), data)
    meant = np.where(order[:, None] < 0, 0, dequantize(kind, blocks)[order])
    np.testing.assert_array_equal(unpack(Matrix(kind.number, len(order), columns, data)), meant)
