# stage: gradcheck | says: dh lacks s, and with it dx and dA.
def low_rank_forward(x, W, A, B, s):
    h = x @ A.T  # (N,R)
    return x @ W.T + s * (h @ B.T), (x, W, A, B, s, h)


def low_rank_backward(dy, cache):
    x, W, A, B, s, h = cache
    dh = dy @ B  # (N,R)
    return dy @ W + dh @ A, dh.T @ x, s * (dy.T @ h)
