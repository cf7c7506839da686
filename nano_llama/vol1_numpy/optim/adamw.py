"""AdamW: Adam with weight decay decoupled from the moments; plain, and fast.

Tests: tests/vol1/test_optim_adam.py compares both with torch's AdamW.

The plain form runs about 14 array operations over the whole of each parameter, and every one of them streams the array
from memory. The fast one does the same arithmetic on tiles that stay in a core's cache and writes through `out=`.
Dealing the tiles out to threads was tried and made it slower: an operation on a tile takes a few microseconds, less
than handing the interpreter lock from one thread to another.
"""

import numpy as np

from nano_llama.vol1_numpy.optim.adam import Adam

CHUNK_ELEMENTS = 32768  # five float32 arrays of this size (theta, g, M, V, scratch) take 640 KiB, about a core's L2


class PlainAdamW(Adam):
    """theta <- (1 - lr lambda) theta - lr m^ / (sqrt(v^) + eps)               (Loshchilov & Hutter 2019, algorithm 2)

    As part of g the decay would be divided by sqrt(v^): weights with large gradients would decay least. Beside it,
    every weight decays at the same rate.
    """

    def update(self, name: str, param: np.ndarray, grad: np.ndarray, lr: float) -> None:
        param *= 1 - lr * self.weight_decay[name]
        param -= lr * self.direction(name, grad)


class AdamW(PlainAdamW):
    """The same numbers, tile by tile.

    Passes over a tile are saved by keeping sums instead of means, M = m / (1 - b1) and V = v / (1 - b2), and by taking
    all constants out of the tile (Kingma & Ba, end of section 2): with c = sqrt((1 - b2^t) / (1 - b2)),
    lr m^ / (sqrt(v^) + eps)  =  lr c (1 - b1) / (1 - b1^t)  M / (sqrt(V) + eps c).
    """

    slots = ("sums", "squares")  # M and V

    def update(self, name: str, param: np.ndarray, grad: np.ndarray, lr: float) -> None:
        """As `step`. The parameter must be contiguous, as every array that was loaded or drawn is."""
        assert param.flags.c_contiguous, f"the parameter {name} is not contiguous: a copy of it would be updated"
        (b1, b2), t = self.betas, self.steps
        c = ((1 - b2**t) / (1 - b2)) ** 0.5
        eps, rate = self.eps * c, lr * c * (1 - b1) / (1 - b1**t)
        scratch = np.empty(CHUNK_ELEMENTS, param.dtype)
        flat = [array.reshape(-1) for array in (param, grad, *(self.state[slot][name] for slot in self.slots))]
        for start in range(0, param.size, CHUNK_ELEMENTS):
            p, g, m, v = (array[start : start + CHUNK_ELEMENTS] for array in flat)
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
