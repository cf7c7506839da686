import numpy as np


def check_orthogonalize(orthogonalize):
    """Raises AssertionError where orthogonalize(matrix) is not about P Q^T for a matrix P S Q^T.

    matrix: (rows,columns), any sizes   -> (rows,columns)
    """
    ...
