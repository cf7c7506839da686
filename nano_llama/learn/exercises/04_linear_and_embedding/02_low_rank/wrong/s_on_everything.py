# stage: smallest | says: s multiplies the addition only, not x W^T.
def low_rank_forward(x, W, A, B, s):
    h = x @ A.T  # (N,R)
    return s * (x @ W.T + h @ B.T), (x, W, A, B, s, h)


def low_rank_backward(dy, cache):
    x, W, A, B, s, h = cache
    dh = s * (dy @ B)  # (N,R)
    return dy @ W + dh @ A, dh.T @ x, s * (dy.T @ h)
