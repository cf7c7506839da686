# stage: smallest | says: SiLU does not keep half of the mean square, as ReLU would: integrate silu's.
import numpy as np
from numpy.polynomial.hermite_e import hermegauss


def stream_size(start, layers, D, F, sigma, scaled):
    spread = np.sqrt(D) * sigma
    z, weight = hermegauss(100)
    gate = spread * z / (1 + np.exp(-spread * z))
    opened = spread**2 / 2
    writing = sigma / np.sqrt(layers) if scaled else sigma
    write = F * writing**2 * opened * spread**2
    return float(np.sqrt(start**2 + layers * write))
