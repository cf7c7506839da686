"""The model's kernels for CPUs, each beside its reference.

    kinds.py              kinds of weights                      model.py          the packed weights of a whole model
    pack.py               how matrices lie in memory            repack.py         ggml's blocks -> packed matrices
    activations.py        rows of floats, as int8 groups of 32, as bfloat16
    linear.py             y = W x: picks one of
        gemm_float.py         weights that are floats
        gemm_int8.py          quantized weights, by the byte dot product
        gemm_int8_amx.py      quantized weights, by AMX tiles
        gemm_bf16_amx.py      prefill rows, by AMX tiles of bfloat16
    lora.py               adapters: low-rank updates of the rows that have one
    unpack.py             a block with a byte per weight        gemm_output.py    accumulators -> output
    embed.py              a row of a packed matrix              norm.py           RMSNorm
    rope.py               rotary embedding                      swiglu.py         SwiGLU
    kv_cache.py           keys and values in blocks             batch_arrays.py   what a step is to compute
    attention.py          queries against keys and values, by one of
        attention_decode.py   one token                         online_softmax.py partial results and their merge
        attention_tiled.py    a tile of queries
        attention_amx.py      prefill rows, by AMX tiles
    step.py               one step of the whole model, as every thread runs it

Not here: which rows a step computes (scheduler.py). Tests: tests/vol3/cpu/kernels/.
"""
