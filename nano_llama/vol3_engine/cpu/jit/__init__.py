"""How kernels come to run: compiled, kept on disk, timed, and shared out among threads.

    jit.py                Numba, without its runtime and with calls that are linked instead of compiled again
    compile_cache.py      machine code on disk, by the hash of all sources
    cycle_counter.py      time inside compiled code
    thread_pool.py        threads that run a step together, with barriers inside

Not here: what they compute (kernels/). Tests: tests/vol3/cpu/jit/.
"""
