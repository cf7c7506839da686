# stage: random | says: A result may have the right shape and the right singular values and be another matrix: compare the singular vectors.
import numpy as np


def check_orthogonalize(orthogonalize):
    rng = np.random.default_rng(0)
    for rows, columns in ((6, 6), (4, 9), (9, 4), (1, 5)):
        for scale in (1e-3, 1.0, 1e3):
            found = orthogonalize(scale * rng.standard_normal((rows, columns)))
            assert np.shape(found) == (rows, columns)
