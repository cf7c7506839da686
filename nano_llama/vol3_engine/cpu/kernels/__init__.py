"""The model's kernels for CPUs, each beside its plain twin.

    pack.py               how matrices lie in memory            repack.py     a GGUF's blocks into them
    activations.py        rows of floats, as int8 groups of 32, as bfloat16
    linear.py             y = W x: picks one of
    gemm_float.py             weights that are floats
    gemm_int8.py              quantized weights, by the byte dot product
    gemm_int8_amx.py          quantized weights, by AMX tiles
    gemm_bf16_amx.py          prompts, by AMX tiles of bfloat16
    unpack.py                 a block with a byte per weight, shared by many tokens
    embed.py              a row of a packed matrix              norm.py       RMSNorm
    rope.py               rotation                              swiglu.py     SwiGLU
    kv_cache.py           keys and values in blocks
    attention.py          queries against them                  attention_decode.py, attention_amx.py
    step.py               all of it: one step of the whole model, as every thread runs it

Not here: what is computed when (runner.py), and policy. Tests: tests/vol3/cpu/kernels/.
"""
