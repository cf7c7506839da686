# stage: gradcheck | says: W gets no gradient, but passes one on: dx has dy W beside the two thin factors.


def low_rank_forward(x, W, A, B, s):
    thin = x @ A.T
    return x @ W.T + s * thin @ B.T, (x, thin, A, B, s)


def low_rank_backward(dy, cache):
    x, thin, A, B, s = cache
    dthin = s * (dy @ B)
    return dthin @ A, dthin.T @ x, s * (dy.T @ thin)
