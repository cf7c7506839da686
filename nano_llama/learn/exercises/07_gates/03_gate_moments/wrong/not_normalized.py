# stage: smallest | says: The weights of the quadrature add up to sqrt(2 pi); an expectation needs weights that add up to 1.
import numpy as np
from numpy.polynomial.hermite_e import hermegauss


def gate_moments(spread):
    z, weight = hermegauss(200)
    x = spread * z
    silu = x / (1 + np.exp(-x))
    mean = np.sum(weight * silu)
    square = np.sum(weight * silu**2)
    return float(mean), float(square), float(square - mean**2)
