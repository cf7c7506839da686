# stage: smallest | says: Every layer keeps keys and values of its own.
def tokens_that_fit(memory, layers, kv_heads, head_dim, number_bytes, block):
    per_token = 2 * kv_heads * head_dim * number_bytes
    return memory // (per_token * block) * block
