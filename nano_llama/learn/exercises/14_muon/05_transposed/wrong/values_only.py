# stage: random | says: The singular values of a transposed matrix are the same: compare the singular vectors, too.
import numpy as np


def check_orthogonalize(orthogonalize):
    rng = np.random.default_rng(0)
    for rows, columns in ((6, 6), (4, 9), (9, 4), (1, 5)):
        for scale in (1e-3, 1.0, 1e3):
            p, _, _ = np.linalg.svd(rng.standard_normal((rows, columns)), full_matrices=False)
            _, _, q = np.linalg.svd(rng.standard_normal((rows, columns)), full_matrices=False)
            s = scale * np.geomspace(1, 50, len(q))
            found = orthogonalize(p * s @ q)
            assert np.shape(found) == (rows, columns)
            values = np.linalg.svd(found, compute_uv=False)
            assert values.min() > 0.6 and values.max() < 1.3, values
