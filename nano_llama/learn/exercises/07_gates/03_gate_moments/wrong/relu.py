# stage: smallest | says: That is ReLU, to which SiLU comes close only for large spreads.
import numpy as np
from numpy.polynomial.hermite_e import hermegauss


def gate_moments(spread):
    z, weight = hermegauss(200)
    weight = weight / weight.sum()
    x = spread * z
    silu = np.maximum(x, 0)
    mean = np.sum(weight * silu)
    square = np.sum(weight * silu**2)
    return float(mean), float(square), float(square - mean**2)
