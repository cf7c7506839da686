# stage: shapes | says: db was summed over one axis only: all leading axes share the bias.
def linear_forward(x, weight, bias):
    return x @ weight.T + bias, (x, weight)


def linear_backward(dy, cache):
    x, weight = cache
    x_rows = x.reshape(-1, x.shape[-1])
    dy_rows = dy.reshape(-1, dy.shape[-1])
    return dy @ weight, dy_rows.T @ x_rows, dy.sum(axis=0)
