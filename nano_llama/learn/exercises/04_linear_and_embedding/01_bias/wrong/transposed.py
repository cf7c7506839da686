# stage: shapes | says: dW was computed as x^T dy, which is its transpose: dW has W's shape, (O,I).
def linear_forward(x, weight, bias):
    return x @ weight.T + bias, (x, weight)


def linear_backward(dy, cache):
    x, weight = cache
    x_rows = x.reshape(-1, x.shape[-1])
    dy_rows = dy.reshape(-1, dy.shape[-1])
    return dy @ weight, x_rows.T @ dy_rows, dy_rows.sum(axis=0)
