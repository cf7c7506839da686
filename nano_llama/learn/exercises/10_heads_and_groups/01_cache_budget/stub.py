def tokens_that_fit(memory, layers, kv_heads, head_dim, number_bytes, block):
    """memory: bytes   number_bytes: of one number   block: tokens that are reserved together   -> tokens, an int"""
    ...
    # return tokens
