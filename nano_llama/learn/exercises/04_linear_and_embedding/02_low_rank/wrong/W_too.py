# stage: shapes | says: There is a gradient too many: W is frozen.
def low_rank_forward(x, W, A, B, s):
    h = x @ A.T  # (N,R)
    return x @ W.T + s * (h @ B.T), (x, W, A, B, s, h)


def low_rank_backward(dy, cache):
    x, W, A, B, s, h = cache
    dh = s * (dy @ B)  # (N,R)
    return dy @ W + dh @ A, dy.T @ x, dh.T @ x, s * (dy.T @ h)
