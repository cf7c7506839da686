"""Random packed matrices for the tests of the kernels."""

import numpy as np

from nano_llama.vol3_engine.cpu.kernels import pack


def make_groups(kind, rows, columns, seed=0):
    """u, d, m as pack_groups takes them; m is None for kinds without minima."""
    rng = np.random.default_rng(seed)
    u = rng.integers(0, 256 if kind == pack.Q8 else 16, (rows, columns)).astype(np.uint8)
    d, m = (rng.normal(0, 0.01, (rows, columns // 32)).astype(np.float16) for _ in range(2))
    return u, d, m if kind == pack.Q4M else None


def make_matrix(kind, rows, columns, seed=0):
    """(matrix, what it means as float32)."""
    if kind < pack.Q8:
        matrix = pack.pack_floats(np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32), kind)
        weight = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
        if kind == pack.BF16:
            import ml_dtypes

            weight = weight.astype(ml_dtypes.bfloat16).astype(np.float32)
        return matrix, weight.astype(np.float16).astype(np.float32) if kind == pack.F16 else weight
    u, d, m = make_groups(kind, rows, columns, seed)
    weight = (u.astype(np.float32) - pack.ZERO_POINT[kind]) * np.repeat(d.astype(np.float32), 32, axis=1)
    if m is not None:
        weight = weight + np.repeat(m.astype(np.float32), 32, axis=1)
    return pack.pack_groups(kind, u, d, m), weight
