from nano_llama.learn.checks import function_cases


def make(rng, layers, kv_heads, head_dim, number_bytes, block):
    per_token = sum(number_bytes for _ in range(2) for _ in range(layers * kv_heads * head_dim))
    memory = int(rng.integers(3 * block * per_token, 9 * block * per_token))
    sizes = {"layers": layers, "kv_heads": kv_heads, "head_dim": head_dim}
    return {"memory": memory, **sizes, "number_bytes": number_bytes, "block": block}


def by_filling(memory, layers, kv_heads, head_dim, number_bytes, block):
    """Block after block, until the next one does not fit."""
    of_block = sum(2 * kv_heads * head_dim * number_bytes for _ in range(block * layers))
    tokens = 0
    while memory >= of_block:
        memory, tokens = memory - of_block, tokens + block
    return tokens


def cases(seed):
    yield from function_cases(
        "tokens_that_fit",
        make,
        small=[
            {"layers": 1, "kv_heads": 1, "head_dim": 2, "number_bytes": 1, "block": 2},
            {"layers": 2, "kv_heads": 1, "head_dim": 4, "number_bytes": 2, "block": 4},
            {"layers": 3, "kv_heads": 2, "head_dim": 8, "number_bytes": 2, "block": 16},
        ],
        random=[
            {"layers": 6, "kv_heads": 5, "head_dim": 64, "number_bytes": 4, "block": 16},
            {"layers": 4, "kv_heads": 3, "head_dim": 10, "number_bytes": 1, "block": 7},
        ],
        seed=seed,
        expected=by_filling,
        edges={
            "less than a block": {
                "memory": 100,
                "layers": 2,
                "kv_heads": 1,
                "head_dim": 4,
                "number_bytes": 2,
                "block": 16,
            },
            "exactly three blocks": {
                "memory": 3 * 16 * 32,
                "layers": 2,
                "kv_heads": 1,
                "head_dim": 4,
                "number_bytes": 2,
                "block": 16,
            },
        },
    )
