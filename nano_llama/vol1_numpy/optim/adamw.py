"""AdamW: Adam with the weight decay taken out of the moments; plain, and fast.

Not here: which parameters decay (base.py). Tests: tests/vol1/test_optim_adam.py compares both with torch's AdamW.

The plain form runs about 14 array operations over the whole of each parameter, and every one of them streams the array
from memory. The fast one does the same arithmetic on tiles that stay in a core's cache, writes through `out=`, and
deals the tiles out to threads (NumPy lets go of the interpreter lock inside an operation).
"""

import numpy as np

from nano_llama.vol1_numpy.optim.adam import Adam
from nano_llama.vol1_numpy.optim.base import Arrays, check_range
from nano_llama.vol1_numpy.parallel import run_shares, shares

TILE = 32768  # elements: five float32 arrays of this size (theta, g, M, V, scratch) take 640 KiB, about a core's L2


class PlainAdamW(Adam):
    """theta <- (1 - lr lambda) theta - lr m^ / (sqrt(v^) + eps)               (Loshchilov & Hutter 2019, algorithm 2)

    As part of g the decay would be divided by sqrt(v^): weights with large gradients would decay least. Beside it,
    every weight decays at the same rate.
    """

    def update(self, name: str, param: np.ndarray, grad: np.ndarray, lr: float) -> None:
        param *= 1 - lr * self.weight_decay[name]
        param -= lr * self.direction(name, grad)


class AdamW(PlainAdamW):
    """The same numbers from tiles, which `threads` threads share.

    Passes over a tile are saved by keeping sums instead of means, M = m / (1 - b1) and V = v / (1 - b2), and by taking
    all constants out of the tile (Kingma & Ba, end of section 2): with c = sqrt((1 - b2^t) / (1 - b2)),
    lr m^ / (sqrt(v^) + eps)  =  lr c (1 - b1) / (1 - b1^t)  M / (sqrt(V) + eps c).
    A tile's bits do not depend on which thread computes it, so neither does the result.
    """

    slots = ("sums", "squares")  # M and V

    def __init__(self, params: Arrays, lr: float = 1e-3, *, threads: int = 1, **options):
        check_range("number of threads", threads, 1)
        super().__init__(params, lr, **options)
        self._tiles = [(n, s) for n, p in params.items() for s in range(0, p.size, TILE)]
        self._shares = shares(len(self._tiles), threads)

    def step(self, params: Arrays, grads: Arrays, lr: float | None = None) -> None:
        """As `Optimizer.step`. The parameters must be contiguous, as every array that was loaded or drawn is."""
        self.steps += 1
        lr = self.lr if lr is None else lr
        flat_params = {name: _flat_view(name, param) for name, param in params.items()}
        flat_grads = {name: grads[name].reshape(-1) for name in params}  # a copy where a gradient is a transpose
        run_shares(lambda part: self._update_tiles(self._tiles[part], flat_params, flat_grads, lr), self._shares)

    def _update_tiles(self, tiles: list[tuple[str, int]], params: Arrays, grads: Arrays, lr: float) -> None:
        (b1, b2), t = self.betas, self.steps
        c = ((1 - b2**t) / (1 - b2)) ** 0.5
        eps, rate = self.eps * c, lr * c * (1 - b1) / (1 - b1**t)
        scratch = np.empty(TILE, next(iter(params.values())).dtype)
        for name, start in tiles:
            part = slice(start, start + TILE)
            p, g = params[name][part], grads[name][part]
            m, v = (self.state[slot][name].reshape(-1)[part] for slot in self.slots)
            s = scratch[: p.size]
            m *= b1  # M <- b1 M + g
            m += g
            v *= b2  # V <- b2 V + g^2
            np.multiply(g, g, out=s)
            v += s
            np.sqrt(v, out=s)  # s <- rate M / (sqrt(V) + eps c)
            s += eps
            np.divide(m, s, out=s)
            s *= rate
            if self.weight_decay[name]:
                p *= 1 - lr * self.weight_decay[name]
            p -= s


def _flat_view(name: str, param: np.ndarray) -> np.ndarray:
    assert param.flags.c_contiguous, f"the parameter {name} is not contiguous: an update would change a copy of it"
    return param.reshape(-1)
