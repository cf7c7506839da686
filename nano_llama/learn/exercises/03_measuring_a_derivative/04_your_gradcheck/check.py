import numpy as np

from nano_llama.learn.checks import test_cases

X = np.random.default_rng(1).standard_normal((3, 3))


def cube(x):
    return x**3, x


def cube_backward(dy, x):
    return 3 * x**2 * dy


def tiny(x):
    return 1e-6 * np.sin(x), x


def tiny_backward(dy, x):
    return 1e-6 * np.cos(x) * dy


def column(x):
    return x[:, 0] ** 2, x


def column_backward(dy, x):
    dx = np.zeros_like(x)
    dx[:, 0] = 2 * x[:, 0] * dy
    return dx


def shares(x):
    e = np.exp(x)
    return e / e.sum(-1, keepdims=True), e / e.sum(-1, keepdims=True)


def shares_backward(dy, y):
    return y * (dy - np.sum(dy * y, -1, keepdims=True))


def row_sums(x):
    return np.sum(x**2, axis=-1), x


def row_sums_backward(dy, x):
    return 2 * x * dy[:, None]


def shares_plain_mean(dy, y):
    return y * (dy - np.mean(dy, -1, keepdims=True))


def transposed(dy, x):
    return cube_backward(dy, x).T


def sign(dy, x):
    return -cube_backward(dy, x)


def one_entry(dy, x):
    dx = cube_backward(dy, x)
    dx[-1, -1] *= 1.5
    return dx


def slightly(dy, x):
    return 1.0002 * cube_backward(dy, x)


def nan(dy, x):
    dx = cube_backward(dy, x)
    dx[1, 1] = np.nan
    return dx


def nothing(dy, x):
    return np.zeros_like(x)


def rows(x):
    return np.ones((3, 1)) * np.sum(x**2, axis=0), x


def rows_backward(dy, x):
    return 2 * x * np.sum(dy, axis=0)


def rows_broadcast(dy, x):
    return (2 * x * np.sum(dy, axis=0))[:1]


SAME = np.tile(X[0], (3, 1))


def cases(seed):
    yield from test_cases(
        "check",
        sound={
            "x^3": (cube, cube_backward, X),
            "1e-6 sin(x)": (tiny, tiny_backward, X),
            "the squares of one column": (column, column_backward, X),
            "shares, exp(x) over their sum": (shares, shares_backward, X),
            "the sums of squares of rows": (row_sums, row_sums_backward, X),
            "one number": (cube, cube_backward, np.array(0.5)),
        },
        faults={
            "-3 x^2 dy as the gradient of x^3": (cube, sign, X),
            "one entry 1.5 times too large": (cube, one_entry, X),
            "shares: the mean of dy in place of its mean weighted by the shares": (shares, shares_plain_mean, X),
            "a transposed gradient": (cube, transposed, X),
            "every entry too large by one part in 5,000": (cube, slightly, X),
            "a NaN in the gradient": (cube, nan, X),
            "0 as the gradient of 1e-6 sin(x)": (tiny, nothing, X),
            "a gradient of shape (1,3) for an x of shape (3,3) with equal rows": (rows, rows_broadcast, SAME),
        },
    )
