def share_heads(weight, H, G, K):
    heads = weight.reshape(G, H // G, K, -1)  # (G,R,K,D): a group's heads are neighbours
    return heads.mean(axis=1).reshape(G * K, -1)
