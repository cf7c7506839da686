"""Adafactor: Adam's second moment kept as one number per row and one per column.

It has no first moment: its authors leave that out to save memory. Tests: tests/vol1/test_optim_adafactor.py.
"""

import numpy as np

from nano_llama.vol1_numpy.optim.base import Arrays, Optimizer, check_range


class Adafactor(Optimizer):
    """Shazeer & Stern 2018, algorithms 4 (matrices) and 5 (vectors), with b_t = 1 - t^-0.8 (their section 7.2):

        R <- b_t R + (1 - b_t) mean over columns of (g^2 + eps1)      one number per row
        C <- b_t C + (1 - b_t) mean over rows of (g^2 + eps1)         one number per column
        V  = R C^T / mean(R)
        U  = g / sqrt(V),        U <- U / max(1, rms(U) / d)          clipped: V lags behind a gradient that grows
        theta <- theta - max(eps2, rms(theta)) min(lr, 1 / sqrt(t)) U

    Why this V: of all matrices r c^T it is the one nearest to the true second moment W >= 0 in the generalized
    Kullback-Leibler divergence  sum_ij W_ij log(W_ij / r_i c_j) - W_ij + r_i c_j. Setting its derivatives to zero,
    r_i sum_j c_j = sum_j W_ij  and  c_j sum_i r_i = sum_i W_ij:  the product keeps W's row and column sums, so
    r c^T = (row sums)(column sums)^T / (sum of all), and with means in place of sums that is V.
    b_1 = 0, so no bias is left to correct. Steps are relative to the weight's own size: lr is a fraction of it.
    Weight decay is AdamW's: theta <- (1 - lr lambda) theta first.
    """

    def __init__(
        self, params: Arrays, lr: float = 1e-2, *, eps1: float = 1e-30, eps2: float = 1e-3, clip: float = 1.0, **options
    ):
        check_range("clipping threshold", clip, 1e-6)
        super().__init__(params, lr, **options)
        self.eps1, self.eps2, self.clip = eps1, eps2, clip
        self.state = {"rows": {}, "columns": {}, "squares": {}}
        for name, param in params.items():
            if param.ndim == 2:
                self.state["rows"][name] = np.zeros_like(param[:, :1])  # (rows, 1)
                self.state["columns"][name] = np.zeros_like(param[:1])  # (1, columns)
            else:
                self.state["squares"][name] = np.zeros_like(param)

    def update(self, name: str, param: np.ndarray, grad: np.ndarray, lr: float) -> None:
        t = self.steps
        squares, new = grad * grad + self.eps1, t**-0.8  # new = 1 - b_t
        if param.ndim == 2:
            rows, columns = self.state["rows"][name], self.state["columns"][name]
            rows += new * (squares.mean(axis=1, keepdims=True) - rows)
            columns += new * (squares.mean(axis=0, keepdims=True) - columns)
            # as two factors: the product of two small numbers could vanish in float32
            step = grad / np.sqrt(rows / rows.mean()) / np.sqrt(columns)
        else:
            v = self.state["squares"][name]
            v += new * (squares - v)
            step = grad / np.sqrt(v)
        step /= max(1.0, rms(step) / self.clip)
        size = max(self.eps2, rms(param))
        param *= 1 - lr * self.weight_decay[name]
        param -= size * min(lr, t**-0.5) * step


def rms(x: np.ndarray) -> float:
    """sqrt(mean(x^2)), the size of a typical entry."""
    return float(np.sqrt(np.mean(x * x)))
