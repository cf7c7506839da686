"""How kernels run: compiled, cached on disk, profiled, and on several threads.

    jit.py                Numba, without its runtime and with calls that are linked instead of compiled again
    compile_cache.py      machine code on disk, named by the hash of all sources
    cycle_counter.py      profiling inside compiled code
    thread_pool.py        threads that run a step together, with barriers inside

Tests: tests/vol3/cpu/jit/.
"""
