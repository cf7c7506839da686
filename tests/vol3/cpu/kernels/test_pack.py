"""Packed matrices: nothing is lost, padding is nothing, and GGUF's blocks mean what the gguf library says they mean."""

import numpy as np
import pytest

from helpers.matrices import make_groups, make_matrix
from nano_llama.vol3_engine.cpu.kernels import pack

QUANTIZED = (pack.Q8, pack.Q4, pack.Q4M)
SHAPES = [(16, 64), (40, 96), (1, 32), (112, 160)]


@pytest.mark.parametrize("kind", range(6), ids=pack.NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_packed_matrix_unpacks_to_what_went_in(kind, shape):
    matrix, weight = make_matrix(kind, *shape)
    assert matrix.data.ctypes.data % 64 == 0
    assert len(matrix.data) == pack.packed_bytes(kind, *shape)
    np.testing.assert_array_equal(pack.unpack(matrix), weight)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_padding_weighs_nothing(kind):
    matrix, _ = make_matrix(kind, 20, 96)
    whole = pack.unpack(matrix._replace(rows=32, columns=128))
    assert not whole[20:].any()
    assert not whole[:, 96:].any()


@pytest.mark.parametrize(("kind", "name"), [(pack.Q8, "Q8_0"), (pack.Q4, "Q4_0"), (pack.Q4M, "Q4_1")])
def test_the_kinds_are_ggufs_blocks(kind, name):
    gguf = pytest.importorskip("gguf")
    u, d, m = make_groups(kind, 16, 64)
    blocks = []
    for row in range(16):
        for g in range(2):
            group = u[row, 32 * g : 32 * g + 32]
            scale = d[row, g : g + 1].tobytes() + (m[row, g : g + 1].tobytes() if m is not None else b"")
            body = (group ^ 0x80) if kind == pack.Q8 else group[:16] | group[16:] << 4
            blocks.append(scale + body.tobytes())
    stored = np.frombuffer(b"".join(blocks), np.uint8).reshape(16, -1)
    meant = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[name])
    np.testing.assert_array_equal(pack.unpack(pack.pack_groups(kind, u, d, m)), meant)
