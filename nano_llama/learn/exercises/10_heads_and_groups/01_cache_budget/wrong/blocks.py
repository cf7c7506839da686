# stage: smallest | says: That is the number of blocks; asked for are tokens.
def tokens_that_fit(memory, layers, kv_heads, head_dim, number_bytes, block):
    per_token = 2 * layers * kv_heads * head_dim * number_bytes
    return memory // (per_token * block)
