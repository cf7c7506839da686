"""Volume 3 on CPUs: compiled by Numba from the Python in these folders, each kernel beside its reference.

    runner.py         the Runner: a model's packed weights, its KV cache and its threads
    plan.py           which tensors become which packed matrices;  weights.py  packs them
    adapters.py       adapters' matrices, packed beside them
    batch.py          a PackedBatch -> the arrays that a step reads
    isa.py            which instruction set this CPU has
    aligned.py        arrays on cache lines
    jit/              how kernels are compiled, cached on disk, profiled, and run by a pool of threads
    simd/             vectors and tiles as values: the intrinsics that kernels use
    kernels/          the model: matrices, attention, norms, and the step that runs them

Tests: tests/vol3/cpu/.
"""
