"""Volume 3's kernels for CPUs: compiled by Numba from the Python in these files, each beside its plain twin.

    tier.py           which instructions this processor has
    simd.py           vectors of 16 lanes as values: the words that kernels are written in
    amx.py            tiles: the words for 16 x 16 products of bytes
    pack.py           how matrices lie in memory
    activations.py    rows of floats, and the same as bytes in groups of 32
    linear.py         y = W x: picks one of
    float_product.py      weights that are floats
    dot_product.py        quantized weights, by the byte dot product
    tile_product.py       quantized weights, by tiles
    unpacked.py           a block with a byte for each weight, shared by many tokens
    norm.py           RMSNorm          rope.py   rotation, and the cache's forms
    swiglu.py         SwiGLU           attention.py   four queries, a part of the cache

Not here: what is computed when (runner/), and policy. Tests: tests/vol3/kernels/.
"""
