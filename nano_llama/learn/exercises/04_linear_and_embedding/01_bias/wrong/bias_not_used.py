# stage: smallest | says: The bias was not added.
def linear_forward(x, weight, bias):
    return x @ weight.T, (x, weight)


def linear_backward(dy, cache):
    x, weight = cache
    x_rows = x.reshape(-1, x.shape[-1])
    dy_rows = dy.reshape(-1, dy.shape[-1])
    return dy @ weight, dy_rows.T @ x_rows, dy_rows.sum(axis=0)
