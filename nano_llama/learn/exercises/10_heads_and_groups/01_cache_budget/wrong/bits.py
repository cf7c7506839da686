# stage: smallest | says: number_bytes are bytes already.
def tokens_that_fit(memory, layers, kv_heads, head_dim, number_bytes, block):
    per_token = 2 * layers * kv_heads * head_dim * number_bytes // 8
    return memory // max(1, per_token * block) * block
