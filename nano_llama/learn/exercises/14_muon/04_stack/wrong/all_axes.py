# stage: smallest | says: It was transposed along all its axes; the first one counts the matrices and stays where it is.
import numpy as np


def orthogonalize_stack(stack, coefficients):
    tall = stack.shape[1] > stack.shape[2]
    x = stack.mT if tall else stack
    norms = np.sqrt(np.sum(x * x, axis=(1, 2), keepdims=True))
    x = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    for a, b, c in coefficients:
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x
