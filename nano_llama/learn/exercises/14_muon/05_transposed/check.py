import numpy as np

from nano_llama.learn.checks import test_cases


def rounds(x, coefficients):
    for a, b, c in coefficients:
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


def normed(x):
    return x / np.linalg.norm(x)


JORDAN, CUBIC = [(3.4445, -4.7750, 2.0315)] * 5, [(1.5, -0.5, 0.0)] * 30


def exact(matrix):
    p, _, q = np.linalg.svd(matrix, full_matrices=False)
    return p @ q


def quintic(matrix):
    tall = matrix.shape[0] > matrix.shape[1]
    x = rounds(normed(matrix.T if tall else matrix), JORDAN)
    return x.T if tall else x


def cubic(matrix):
    return rounds(normed(matrix), CUBIC)


def square_transposed(matrix):
    """>= where > belongs on the way in, and > on the way out."""
    x = rounds(normed(matrix.T if matrix.shape[0] >= matrix.shape[1] else matrix), JORDAN)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def tall_reshaped(matrix):
    tall = matrix.shape[0] > matrix.shape[1]
    x = rounds(normed(matrix.T if tall else matrix), JORDAN)
    return x.reshape(matrix.shape)


def wide_flipped(matrix):
    x = quintic(matrix)
    return x[:, ::-1] if matrix.shape[0] < matrix.shape[1] else x


def gram_of_columns(matrix):
    """The inverse root of g^T g on the wrong side, where both sides have one size."""
    if matrix.shape[0] != matrix.shape[1]:
        return exact(matrix)
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    return vectors / np.sqrt(values) @ vectors.T @ matrix


def not_divided(matrix):
    with np.errstate(all="ignore"):
        return np.nan_to_num(rounds(matrix / max(1.0, np.linalg.norm(matrix)), JORDAN), nan=0.0)


def rows_alone(matrix):
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def only_divided(matrix):
    return matrix / np.linalg.norm(matrix, 2)


def two_rounds(matrix):
    return rounds(normed(matrix), JORDAN[:2])


def negative(matrix):
    return -exact(matrix)


def cases(seed):
    yield from test_cases(
        "check_orthogonalize",
        sound={"by an SVD": (exact,), "five rounds of Jordan's": (quintic,), "thirty rounds of the cubic": (cubic,)},
        faults={
            "each row is divided by its length, and that is all": (rows_alone,),
            "the sign is wrong": (negative,),
            "a square matrix comes back transposed": (square_transposed,),
            "a tall matrix is reshaped instead of transposed back": (tall_reshaped,),
            "the columns of a wide matrix are in the wrong order": (wide_flipped,),
            "of a square matrix, the root is taken of g^T g and stands on the left": (gram_of_columns,),
            "a small matrix is not divided by its norm": (not_divided,),
            "the matrix is divided by its largest singular value, and that is all": (only_divided,),
            "two rounds instead of five": (two_rounds,),
        },
    )
