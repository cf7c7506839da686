# stage: smallest | says: A token leaves a key and a value.
def tokens_that_fit(memory, layers, kv_heads, head_dim, number_bytes, block):
    per_token = layers * kv_heads * head_dim * number_bytes
    return memory // (per_token * block) * block
