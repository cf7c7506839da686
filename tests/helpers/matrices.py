"""Random packed matrices for the tests of the kernels."""

import numpy as np

from nano_llama.formats.dtypes import DTYPES
from nano_llama.formats.kinds import Kind
from nano_llama.vol3_engine.cpu.kernels import pack
from nano_llama.vol3_engine.cpu.kernels.kinds import FLOAT_KINDS, LAYOUTS


def make_groups(kind, rows, columns, seed=0):
    """u, d, m as pack_groups takes them; m is None for kinds without minima."""
    rng = np.random.default_rng(seed)
    u = rng.integers(0, 256 if kind == Kind.Q8_0 else 16, (rows, columns)).astype(np.uint8)
    d, m = (rng.normal(0, 0.01, (rows, columns // 32)).astype(np.float16) for _ in range(2))
    return u, d, m if kind == Kind.Q4_1 else None


def make_matrix(kind, rows, columns, seed=0):
    """(matrix, what it means as float32)."""
    if kind.number in FLOAT_KINDS:
        weight = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
        return pack.pack_floats(weight, kind.number), weight.astype(DTYPES[kind]).astype(np.float32)
    u, d, m = make_groups(kind, rows, columns, seed)
    weight = (u.astype(np.float32) - LAYOUTS[kind.number].zero_point) * np.repeat(d.astype(np.float32), 32, axis=1)
    if m is not None:
        weight = weight + np.repeat(m.astype(np.float32), 32, axis=1)
    return pack.pack_groups(kind.number, u, d, m), weight
