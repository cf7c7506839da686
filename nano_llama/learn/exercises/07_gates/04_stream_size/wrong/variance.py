# stage: smallest | says: Nobody subtracts the mean on the way: it is the mean square of silu(gate) that counts, not its variance.
import numpy as np
from numpy.polynomial.hermite_e import hermegauss


def stream_size(start, layers, D, F, sigma, scaled):
    spread = np.sqrt(D) * sigma
    z, weight = hermegauss(100)
    gate = spread * z / (1 + np.exp(-spread * z))
    opened = (
        np.sum(weight * gate**2) / weight.sum() - (np.sum(weight * gate) / weight.sum()) ** 2
    )  # the mean square of silu(gate)
    writing = sigma / np.sqrt(layers) if scaled else sigma
    write = F * writing**2 * opened * spread**2
    return float(np.sqrt(start**2 + layers * write))
