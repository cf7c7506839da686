# stage: smallest | says: The stream does not begin empty.
import numpy as np
from numpy.polynomial.hermite_e import hermegauss


def stream_size(start, layers, D, F, sigma, scaled):
    spread = np.sqrt(D) * sigma
    z, weight = hermegauss(100)
    gate = spread * z / (1 + np.exp(-spread * z))
    opened = np.sum(weight * gate**2) / weight.sum()  # the mean square of silu(gate)
    writing = sigma / np.sqrt(layers) if scaled else sigma
    write = F * writing**2 * opened * spread**2
    return float(np.sqrt(layers * write))
