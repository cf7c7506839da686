# stage: smallest | says: A block is reserved whole: what is left over holds no token.
def tokens_that_fit(memory, layers, kv_heads, head_dim, number_bytes, block):
    per_token = 2 * layers * kv_heads * head_dim * number_bytes
    return memory // per_token
