"""Volume 3's kernels for CPUs: compiled by Numba from the Python in these files, each beside its plain twin.

    tier.py       which instructions this processor has
    simd.py       vectors of 16 lanes as values: the words that kernels are written in

Not here: what is computed when (runner/), and policy. Tests: tests/vol3/kernels/.
"""
