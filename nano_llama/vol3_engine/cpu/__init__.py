"""Volume 3 on CPUs: compiled by Numba from the Python in these folders, each kernel beside its plain twin.

    runner.py         the Runner: a model's packed weights, its KV cache and its threads
    weights.py        a checkpoint's tensors -> packed matrices
    batch.py          a PackedBatch -> the arrays that a step reads
    isa.py            which instructions this CPU has
    jit/              how kernels are compiled, cached on disk, timed, and run by a pool of threads
    simd/             vectors and tiles as values: the intrinsics that kernels are written in
    kernels/          the model: matrices, attention, norms, and the step that runs them

Not here: policy (scheduler.py). Tests: tests/vol3/cpu/.
"""
