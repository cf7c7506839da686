# stage: smallest | says: A block that does not fit does not fit: round down.
def tokens_that_fit(memory, layers, kv_heads, head_dim, number_bytes, block):
    per_token = 2 * layers * kv_heads * head_dim * number_bytes
    return -(-memory // (per_token * block)) * block
