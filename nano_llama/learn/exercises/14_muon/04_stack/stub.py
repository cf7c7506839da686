import numpy as np


def orthogonalize_stack(stack, coefficients):
    """stack: (matrices,rows,columns)   coefficients: [(a, b, c), ...], one for each round

    -> (matrices,rows,columns)
    """
    ...
    # return x
