"""Packed matrices: lossless, padded with zeros, and the same weights as the gguf library's blocks."""

import numpy as np
import pytest

from helpers.matrices import make_groups, make_matrix
from nano_llama.formats.kinds import WRITABLE_BLOCKS, Kind
from nano_llama.vol3_engine.cpu.kernels import pack
from nano_llama.vol3_engine.cpu.kernels.kinds import KERNEL_KINDS

SHAPES = [(16, 64), (40, 96), (1, 32), (112, 160)]


@pytest.mark.parametrize("kind", KERNEL_KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_packing_and_unpacking_is_lossless(kind, shape):
    matrix, weight = make_matrix(kind, *shape)
    assert matrix.data.ctypes.data % 64 == 0
    assert len(matrix.data) == pack.packed_bytes(kind.number, *shape)
    np.testing.assert_array_equal(pack.unpack(matrix), weight)


@pytest.mark.parametrize("kind", WRITABLE_BLOCKS)
def test_padding_is_zeros(kind):
    matrix, _ = make_matrix(kind, 20, 96)
    whole = pack.unpack(matrix._replace(rows=32, columns=128))
    assert not whole[20:].any()
    assert not whole[:, 96:].any()


@pytest.mark.parametrize("kind", WRITABLE_BLOCKS)
def test_groups_mean_the_same_as_blocks_in_the_gguf_library(kind):
    gguf = pytest.importorskip("gguf")
    u, d, m = make_groups(kind, 16, 64)
    blocks = []
    for row in range(16):
        for g in range(2):
            group = u[row, 32 * g : 32 * g + 32]
            scale = d[row, g : g + 1].tobytes() + (m[row, g : g + 1].tobytes() if m is not None else b"")
            body = (group ^ 0x80) if kind == Kind.Q8_0 else group[:16] | group[16:] << 4
            blocks.append(scale + body.tobytes())
    stored = np.frombuffer(b"".join(blocks), np.uint8).reshape(16, -1)
    meant = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[kind.name])
    np.testing.assert_array_equal(pack.unpack(pack.pack_groups(kind.number, u, d, m)), meant)
