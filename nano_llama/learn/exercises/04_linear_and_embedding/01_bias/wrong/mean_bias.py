# stage: gradcheck | says: db is the mean over the rows; every row adds its own dy, so it is their sum.
def linear_forward(x, weight, bias):
    return x @ weight.T + bias, (x, weight)


def linear_backward(dy, cache):
    x, weight = cache
    x_rows = x.reshape(-1, x.shape[-1])
    dy_rows = dy.reshape(-1, dy.shape[-1])
    return dy @ weight, dy_rows.T @ x_rows, dy_rows.mean(axis=0)
