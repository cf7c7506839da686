"""Volume 3's kernels for CPUs: compiled by Numba from the Python in these files, each beside its plain twin.

    tier.py           which instructions this processor has
    simd.py           vectors of 16 lanes as values: the words that kernels are written in
    byte_dots.py      the words for bytes: nibbles apart, sums of products
    amx.py            tiles: the words for 16 x 16 products of bytes
    pack.py           how matrices lie in memory
    bf16_tiles.py     tiles: the words for products of bfloat16
    activations.py    rows of floats, and the same as bytes in groups of 32, as bfloat16
    linear.py         y = W x: picks one of
    float_product.py      weights that are floats
    dot_product.py        quantized weights, by the byte dot product
    tile_product.py       quantized weights, by tiles
    prompt_product.py     tokens of prompts, by tiles of bfloat16
    unpacked.py           a block with a byte for each weight, shared by many tokens
    embed.py          a row of a packed matrix          norm.py        RMSNorm
    rope.py           rotation                          swiglu.py      SwiGLU
    kv_cache.py       keys and values in blocks         attention.py   tiles of queries against them
    step.py           all of it: one step of the whole model, as every thread runs it
    threads.py        a team that runs it, with barriers inside
    compiled.py       how kernels are compiled          cache.py       and kept on disk
    repack.py         a GGUF's blocks into packed matrices             clock.py   time inside compiled code

Not here: what is computed when (runner/), and policy. Tests: tests/vol3/kernels/.
"""
