"""SIMD as values: vectors of 16 lanes and tiles, which LLVM turns into whatever registers a CPU has.

    intrinsics.py     vectors of floats, integers and bytes: load, fma, shuffle, reduce
    int8_dot.py       dot products of bytes, nibbles unpacked
    amx.py            AMX: products of 16 x 16 tiles of bytes        amx_bf16.py    and of bfloat16
    accumulators.py   a few rows of accumulators, kept in registers

Tests: tests/vol3/cpu/simd/.
"""
