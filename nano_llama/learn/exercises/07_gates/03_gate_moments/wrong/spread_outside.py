# stage: smallest | says: The spread stands inside of SiLU, which is not linear: silu(2 z) is not 2 silu(z).
import numpy as np
from numpy.polynomial.hermite_e import hermegauss


def gate_moments(spread):
    z, weight = hermegauss(200)
    weight = weight / weight.sum()
    x = z
    silu = spread * x / (1 + np.exp(-x))
    mean = np.sum(weight * silu)
    square = np.sum(weight * silu**2)
    return float(mean), float(square), float(square - mean**2)
